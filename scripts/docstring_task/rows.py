"""Rows of the task: the text shown, its label, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scripts.stdlib_text.areas import TASK_AREAS, Split, area_of
from scripts.stdlib_text.comments import block_comments
from scripts.stdlib_text.shingles import words
from scripts.stdlib_text.source import SourceFile, docstrings

MASK = "_"
MAX_CHARACTERS = 400
MIN_WORDS = 8


@dataclass(frozen=True)
class Row:
    """One example. `name` is the object documented, or `line 123`; `whole` is the text before masking and cutting."""

    text: str
    label: str
    module: str
    name: str
    whole: str


def mask_module(text: str, module: str) -> str:
    """Replace the module's own names by `_`, whatever their case.

    A name of five letters or more is replaced inside longer identifiers too (`turtle` in `TurtleScreen`), a name of
    three or four only where no letter touches it, a name of two only before a dot (`os.`).
    """
    for name in sorted((part.strip("_") for part in module.split(".")), key=len, reverse=True):
        escaped = re.escape(name)
        if len(name) >= 5:
            pattern = escaped
        elif len(name) >= 3:
            pattern = rf"(?<![A-Za-z]){escaped}(?![A-Za-z])"
        else:
            pattern = rf"(?<![A-Za-z]){escaped}(?=\.)"
        text = re.sub(pattern, MASK, text, flags=re.IGNORECASE)
    return text


def shorten(text: str, limit: int = MAX_CHARACTERS) -> str:
    """One line of at most `limit` characters, cut between words."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    return line[: limit + 1].rsplit(" ", 1)[0][:limit]


def _row(text: str, label: str, module: str, name: str) -> Row | None:
    shown = shorten(mask_module(text, module))
    return Row(shown, label, module, name, text) if len(words(shown)) >= MIN_WORDS else None


def docstring_rows(sources: Iterable[SourceFile], split: Split) -> Iterator[Row]:
    """A row for each docstring of the split's modules, test packages left out."""
    for source, label in _of_split(sources, split):
        for doc in docstrings(source):
            if row := _row(doc.text, label, source.module, doc.name):
                yield row


def comment_rows(sources: Iterable[SourceFile], split: Split) -> Iterator[Row]:
    """A row for each block comment of the split's modules: the same labels, another kind of text."""
    for source, label in _of_split(sources, split):
        for line, text in block_comments(source):
            if row := _row(text, label, source.module, f"line {line}"):
                yield row


def _of_split(sources: Iterable[SourceFile], split: Split) -> Iterator[tuple[SourceFile, str]]:
    for source in sources:
        found = None if source.is_test else area_of(source.module)
        if found is not None and found[0] in TASK_AREAS and found[1] == split:
            yield source, found[0]

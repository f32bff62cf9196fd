"""Public-domain books, read from JSONL rows `{"author", "title", "text"}` and lightly cleaned."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

#: Whole books no model is trained on: they measure how well it reads prose it has not seen.
HELD_OUT_TITLES = ("The Wind in the Willows", "The Happy Prince & Other Tales")

_LICENCE_START = re.compile(
    r"\A.*?\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n", re.DOTALL | re.IGNORECASE
)
_LICENCE_END = re.compile(
    r"\n[^\n]*\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG.*\Z", re.DOTALL | re.IGNORECASE
)
_HEADER = re.compile(r"\A(?:\s*(?:Title|Author|Year|Release date|Language):[^\n]*\n)+", re.IGNORECASE)


@dataclass(frozen=True)
class Book:
    """One book: title, author, clean text."""

    title: str
    author: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the book is kept for evaluation."""
        return self.title in HELD_OUT_TITLES


def clean(text: str) -> str:
    """The text without licence header and footer, catalogue header, trailing blanks and long runs of empty lines."""
    text = text.replace("\r\n", "\n").lstrip("\ufeff")
    text = _HEADER.sub("", _LICENCE_END.sub("", _LICENCE_START.sub("", text)))
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def read_books(path: Path) -> list[Book]:
    """All books of a JSONL file, cleaned, in the order of the file."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Book(row["title"], row["author"], clean(row["text"])) for row in rows]

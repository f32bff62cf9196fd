"""From all rows to splits that share no text, with no label far ahead of the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from scripts.docstring_task.rows import Row, comment_rows, docstring_rows
from scripts.stdlib_text.shingles import normalised, shingles
from scripts.stdlib_text.source import SourceFile

#: Most rows of one label in a split.
CAPS = {"train": 350, "validation": 60, "test": 100, "ood": 80}


def _order(row: Row) -> str:
    """A fixed random order: the same rows come in the same order on every machine."""
    return hashlib.sha256(f"{row.module}\n{row.name}\n{row.text}".encode()).hexdigest()


def distinct(rows: Iterable[Row], taken: set[str]) -> list[Row]:
    """Rows that share no shingle with `taken`, nor with a row kept before them; `taken` grows by what is kept.

    Shingles are those of the whole source text and of the shown text, so a common passage beyond the cut, or one
    that masking altered, counts too.
    """
    kept = []
    for row in sorted(rows, key=_order):
        found = shingles(row.whole) | shingles(row.text) | {normalised(row.text)}
        if found & taken:
            continue
        taken |= found
        kept.append(row)
    return kept


def capped(rows: list[Row], cap: int) -> list[Row]:
    """The first `cap` rows of each label."""
    counts: Counter[str] = Counter()
    kept = []
    for row in rows:
        counts[row.label] += 1
        if counts[row.label] <= cap:
            kept.append(row)
    return kept


def build(sources: list[SourceFile]) -> dict[str, list[Row]]:
    """Splits by name. Where two splits share a passage, the row stays in the first of test, validation, train, ood."""
    taken: set[str] = set()
    test = distinct(docstring_rows(sources, "test"), taken)
    validation = distinct(docstring_rows(sources, "validation"), taken)
    train = distinct(docstring_rows(sources, "train"), taken)
    ood = distinct(comment_rows(sources, "test"), taken)
    found = {"train": train, "validation": validation, "test": test, "ood": ood}
    return {name: capped(rows, CAPS[name]) for name, rows in found.items()}

"""Near duplicates by word shingles (Broder 1997, "On the resemblance and containment of documents")."""

from __future__ import annotations

import re
from collections.abc import Iterable

SHINGLE_WORDS = 8

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case words of a text; two texts with the same list are the same text, normalised."""
    return _WORD.findall(text.lower())


def normalised(text: str) -> str:
    """The words of a text, joined by single spaces."""
    return " ".join(words(text))


def shingles(text: str, size: int = SHINGLE_WORDS) -> frozenset[str]:
    """All runs of `size` words of a text; the whole text where it has fewer words (the empty set when none)."""
    found = words(text)
    if len(found) <= size:
        return frozenset([" ".join(found)]) if found else frozenset()
    return frozenset(" ".join(found[i : i + size]) for i in range(len(found) - size + 1))


def union(texts: Iterable[str]) -> frozenset[str]:
    """The shingles of all texts together."""
    return frozenset().union(*(shingles(text) for text in texts))

"""Which example goes where. Every choice is by hash of the text, so file order and process never matter."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxpeft.tasks._example import Example
from ctxpeft.tasks._view import Examples


def without(examples: Sequence[Example], others: Sequence[Example]) -> tuple[Examples, int]:
    """`examples` whose text is in none of `others`, and how many were removed."""
    found = Examples.of(examples)
    if not others:
        return found, 0
    texts, taken = numbered(found, Examples.of(others))
    kept = found.chosen(~np.isin(texts, taken))
    return kept, len(found) - len(kept)


def hold_out(
    examples: Sequence[Example], fraction: float, salt: str = "validation"
) -> tuple[Examples, Examples]:
    """Split into (kept, held out), stratified by target; equal texts always lie on the same side.

    Every class with two different texts or more gives at least one and keeps at least one.
    """
    found = Examples.of(examples)
    (texts,) = numbered(found)
    firsts = _firsts(texts)
    classes = found.targets()[firsts]
    names = np.unique(classes)
    strata = [firsts[classes == name] for name in names] if len(names) * 4 <= len(firsts) else [firsts]
    held = np.zeros(len(firsts), dtype=np.bool_)
    for members in strata:
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[texts[_lowest(count, members, found, salt)]] = True
    out = held[texts]
    return found.chosen(~out), found.chosen(out)


def some_prompts(examples: Sequence[Example], limit: int | None) -> Examples:
    """All examples of at most `limit` different texts: references of one prompt stay together."""
    found = Examples.of(examples)
    if limit is None:
        return found
    (texts,) = numbered(found)
    kept = _lowest(limit, _firsts(texts), found, "draw0")
    return found.chosen(np.isin(texts, texts[kept]))


def subsample(
    examples: Sequence[Example], limit: int | None = None, per_class: int | None = None, draw: int = 0
) -> Examples:
    """At most `per_class` examples of each target, then at most `limit`; file order is kept.

    Draws are nested: the examples of `limit=100` are among those of `limit=200`.
    """
    found = Examples.of(examples)
    if limit is None and per_class is None:
        return found
    chosen = np.arange(len(found))
    if per_class is not None:
        targets = found.targets()
        members = [chosen[targets == target] for target in np.unique(targets)]
        lowest = [_lowest(per_class, some, found, f"draw{draw}") for some in members]
        chosen = np.concatenate([chosen[:0], *lowest])
    if limit is not None:
        chosen = _lowest(limit, chosen, found, f"draw{draw}")
    return found.chosen(np.sort(chosen))


def numbered(*parts: Examples) -> list[NDArray[np.int64]]:
    """A number for the text of every example of every part, from 0: equal where the texts are."""
    keys = np.concatenate([part.keys() for part in parts])
    order = np.lexsort(keys.T)
    keys = keys[order]
    steps = np.zeros(len(keys), dtype=np.int64)
    steps[1:] = np.cumsum((keys[1:] != keys[:-1]).any(axis=1))
    numbers = np.empty_like(steps)
    numbers[order] = steps
    return np.split(numbers, np.cumsum([len(part) for part in parts])[:-1])


def _firsts(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index of the first example of each number, in order of the numbers."""
    return np.unique(numbers, return_index=True)[1]


def _lowest(count: int, members: NDArray[Any], examples: Examples, salt: str) -> NDArray[np.int64]:
    """The `count` members of lowest rank: indices into `examples`."""

    def rank(index: int) -> tuple[bytes, int]:
        return _rank(examples.digest(index), salt), index

    return np.array(heapq.nsmallest(count, map(int, members), key=rank), dtype=np.int64)


def _rank(digest: bytes, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:{digest.hex()}".encode()).digest()

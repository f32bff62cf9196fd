"""Which example goes where. Every choice is by hash of the text, so file order and process never matter."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Sequence

from ctxpeft.tasks._examples import Example


def without(examples: Sequence[Example], others: Sequence[Example]) -> tuple[list[Example], int]:
    """`examples` whose text is in none of `others`, and how many were removed."""
    taken = {example.digest for example in others}
    kept = [example for example in examples if example.digest not in taken] if taken else list(examples)
    return kept, len(examples) - len(kept)


def hold_out(
    examples: Sequence[Example], fraction: float, salt: str = "validation"
) -> tuple[list[Example], list[Example]]:
    """Split into (kept, held out), stratified by target; equal texts always lie on the same side.

    Every class with two different texts or more gives at least one and keeps at least one.
    """
    first_class: dict[bytes, str] = {}
    for example in examples:
        first_class.setdefault(example.digest, example.target)
    groups: dict[str, list[bytes]] = defaultdict(list)
    for key, target in first_class.items():
        groups[target].append(key)
    strata = groups if len(groups) * 4 <= len(first_class) else {"": list(first_class)}
    held: set[bytes] = set()
    for keys in strata.values():
        count = min(max(round(fraction * len(keys)), 1), len(keys) - 1)
        held.update(heapq.nsmallest(count, keys, key=lambda key: _rank(key, salt)))
    kept = [example for example in examples if example.digest not in held]
    return kept, [example for example in examples if example.digest in held]


def some_prompts(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """All examples of at most `limit` different texts: references of one prompt stay together."""
    if limit is None:
        return list(examples)
    texts = dict.fromkeys(example.digest for example in examples)
    kept = set(heapq.nsmallest(limit, texts, key=lambda digest: _rank(digest, "draw0")))
    return [example for example in examples if example.digest in kept]


def subsample(
    examples: Sequence[Example], limit: int | None = None, per_class: int | None = None, draw: int = 0
) -> list[Example]:
    """At most `per_class` examples of each target, then at most `limit`; file order is kept.

    Draws are nested: the examples of `limit=100` are among those of `limit=200`.
    """
    if limit is None and per_class is None:
        return list(examples)

    def rank(i: int) -> tuple[bytes, int]:
        return _rank(examples[i].digest, f"draw{draw}"), i

    chosen: Sequence[int] = range(len(examples))
    if per_class is not None:
        classes: dict[str, list[int]] = defaultdict(list)
        for i in chosen:
            classes[examples[i].target].append(i)
        chosen = [i for members in classes.values() for i in heapq.nsmallest(per_class, members, key=rank)]
    if limit is not None:
        chosen = heapq.nsmallest(limit, chosen, key=rank)
    return [examples[i] for i in sorted(chosen)]


def _rank(digest: bytes, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:{digest.hex()}".encode()).digest()

"""Which example goes where. Every choice is by hash of the text, so file order and process never matter."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from ctxpeft.tasks._examples import Example


def without(examples: Sequence[Example], others: Sequence[Example]) -> tuple[list[Example], int]:
    """`examples` whose text is in none of `others`, and how many were removed."""
    taken = {example.key for example in others}
    kept = [example for example in examples if example.key not in taken]
    return kept, len(examples) - len(kept)


def hold_out(
    examples: Sequence[Example], fraction: float, salt: str = "validation"
) -> tuple[list[Example], list[Example]]:
    """Split into (kept, held out), stratified by target; equal texts always lie on the same side.

    Every class with two different texts or more gives at least one and keeps at least one.
    """
    first_class: dict[str, str] = {}
    for example in examples:
        first_class.setdefault(example.key, example.target)
    groups: dict[str, list[str]] = defaultdict(list)
    for key, target in first_class.items():
        groups[target].append(key)
    strata = groups if len(groups) * 4 <= len(first_class) else {"": list(first_class)}
    held: set[str] = set()
    for keys in strata.values():
        count = min(max(round(fraction * len(keys)), 1), len(keys) - 1)
        held.update(_ordered(keys, salt)[:count])
    kept = [example for example in examples if example.key not in held]
    return kept, [example for example in examples if example.key in held]


def some_prompts(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """All examples of at most `limit` different texts: references of one prompt stay together."""
    if limit is None:
        return list(examples)
    kept = set(_ordered(list(dict.fromkeys(example.key for example in examples)), "draw0")[:limit])
    return [example for example in examples if example.key in kept]


def subsample(
    examples: Sequence[Example], limit: int | None = None, per_class: int | None = None, draw: int = 0
) -> list[Example]:
    """At most `per_class` examples of each target, then at most `limit`; file order is kept.

    Draws are nested: the examples of `limit=100` are among those of `limit=200`.
    """
    chosen = list(range(len(examples)))
    order = {i: (_rank(examples[i].key, f"draw{draw}"), i) for i in chosen}
    if per_class is not None:
        classes: dict[str, list[int]] = defaultdict(list)
        for i in chosen:
            classes[examples[i].target].append(i)
        chosen = [
            i for members in classes.values() for i in sorted(members, key=order.__getitem__)[:per_class]
        ]
    if limit is not None:
        chosen = sorted(chosen, key=order.__getitem__)[:limit]
    return [examples[i] for i in sorted(chosen)]


def _ordered(keys: Sequence[str], salt: str) -> list[str]:
    return sorted(keys, key=lambda key: _rank(key, salt))


def _rank(key: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{key}".encode()).hexdigest()

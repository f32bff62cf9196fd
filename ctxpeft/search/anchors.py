"""Anchors: what people use today, standing in the search at the size nearest to its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxpeft.errors import CtxpeftError, SpecError
from ctxpeft.search.budget import Target, nearest
from ctxpeft.search.design import Count
from ctxpeft.search.named import named_variant
from ctxpeft.spec.variant import Variant

UNSIZED = "has no size to turn"
KNOBS = (("memory", "count"), ("memory", "rank"), ("feature_map", "width"))
MOST = 4096
TOO_MANY = 1 << 62


@dataclass(frozen=True)
class Anchor:
    """A variant at its nearest size. `size` says which knob was turned, `published` is the count before that; `size` is
    `UNSIZED` where the budget is missed and there is none.
    """

    name: str
    variant: Variant
    parameters: int
    published: int
    size: str


def load_anchor(name: str, folder: Path, count: Count, target: Target | None) -> Anchor:
    """An anchor by shipped name or by a path relative to the space's folder."""
    given = named_variant(name, folder)
    try:
        published = count(given)
    except CtxpeftError as error:
        raise SpecError(f"anchor {name}: {error}") from None
    if target is None or target.meets(published):
        return Anchor(given.name, given, published, published, "")
    candidates = list(_resized(given, count, target))
    if not candidates:
        return Anchor(given.name, given, published, published, UNSIZED)
    variant, parameters, size = min(candidates, key=lambda c: abs(c[1] - target.parameters))
    return Anchor(given.name, variant, parameters, published, size)


def _resized(given: Variant, count: Count, target: Target) -> Iterator[tuple[Variant, int, str]]:
    for make, low, what in _knobs(given):

        def counted(value: int, make: Callable[[int], Variant] = make) -> int:
            try:
                return count(make(value))
            except CtxpeftError:  # a rank above the width it is taken of: more than fits
                return TOO_MANY

        value, parameters = nearest(counted, low, MOST, target.parameters)
        if parameters < TOO_MANY:
            yield make(value), parameters, f"{what} {value}"


def _knobs(given: Variant) -> Iterator[tuple[Callable[[int], Variant], int, str]]:
    """Ways to write the variant at another size."""
    data = given.to_dict()
    if given.peft is not None:
        arguments = given.peft.arguments()
        if isinstance(arguments.get("r"), int):
            ratio = arguments.get("lora_alpha", arguments["r"]) / arguments["r"]

            def lora(r: int) -> Variant:
                changed: dict[str, Any] = {**data["peft"], "r": r}
                if "lora_alpha" in arguments:
                    changed["lora_alpha"] = round(ratio * r)
                return Variant.model_validate({**data, "peft": changed})

            yield lora, 1, "r"
        return
    for index, module in enumerate(given.modules):
        for block, key in KNOBS:
            if isinstance(getattr(getattr(module, block), key, None), int):
                yield _knob(data, index, block, key), 1, key


def _knob(data: dict[str, Any], index: int, block: str, key: str) -> Callable[[int], Variant]:
    def at(value: int) -> Variant:
        modules = [dict(module) for module in data["modules"]]
        modules[index] = {**modules[index], block: {**modules[index][block], key: value}}
        return Variant.model_validate({**data, "modules": modules})

    return at


def size_in_words(size: str, published: int | None) -> str:
    """What stands behind an anchor's count: its nearest size, or that there is none; "" where it is as published."""
    if size == UNSIZED:
        return UNSIZED
    return f"nearest size, {size}; {published:,} as published" if size and published is not None else ""


def in_words(anchor: Anchor) -> str:
    """One line on an anchor at the start of a search."""
    words = size_in_words(anchor.size, anchor.published)
    return f"anchor {anchor.name}: {anchor.parameters:,} parameters{f'; {words}' if words else ''}"

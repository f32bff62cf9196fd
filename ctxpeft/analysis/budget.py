"""Variants at equal size: the knob of each that changes its parameters, turned until they are nearest to a number."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ctxpeft.search.anchors import load_anchor
from ctxpeft.search.budget import Target
from ctxpeft.search.counting import Counter
from ctxpeft.training import Method, VariantLike, load_method

TOLERANCE = 0.03


@dataclass(frozen=True)
class Sized:
    """A method at the size nearest to a budget. `note` tells what was turned, and how far off it still is."""

    method: Method
    parameters: int | None
    note: str


def at_budget(model: nn.Module, variants: Sequence[VariantLike | Method], parameters: int) -> list[Sized]:
    """Every variant with as many slots, or of such a rank or width, that it has nearest to `parameters` trained ones.

    Baselines stay as they are, and so does a variant that is within 3 % or has nothing to turn.

    Raises:
        SpecError: see `load_variant`; a variant does not fit the model.
    """
    counter = Counter(model)
    target = Target(parameters, TOLERANCE)
    found = []
    for method in map(load_method, variants):
        if method.variant is None:
            found.append(Sized(method, None, f"{method.name}: not sized"))
            continue
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "variant.yaml"
            method.variant.to_yaml(file)
            anchor = load_anchor(file.name, file.parent, counter, target)
        turned = f"{anchor.size}, " if anchor.size else ""
        off = "" if target.meets(anchor.parameters) else f"; the nearest to {parameters:,} it comes"
        shipped = f" ({anchor.published:,} as it is)" if anchor.parameters != anchor.published else ""
        note = f"{anchor.name}: {turned}{anchor.parameters:,} parameters{shipped}{off}"
        found.append(Sized(load_method(anchor.variant), anchor.parameters, note))
    return found

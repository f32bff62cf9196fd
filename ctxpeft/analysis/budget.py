"""Variants at equal size: the knob of each that changes its parameters, turned until they are nearest to a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ctxpeft.search.anchors import load_anchor
from ctxpeft.search.budget import Target
from ctxpeft.search.counting import Counter
from ctxpeft.training import BASELINES, Method, load_method

TOLERANCE = 0.03


@dataclass(frozen=True)
class Sized:
    """A method at the size nearest to a budget. `note` tells what was turned, and how far off it still is."""

    method: Method
    parameters: int | None
    note: str


def at_budget(model: nn.Module, names: Sequence[str], parameters: int) -> list[Sized]:
    """Every variant with as many slots, or of such a rank or width, that it has nearest to `parameters` trained ones.

    Baselines stay as they are, and so does a variant that is within 3 % or has nothing to turn.

    Raises:
        SpecError: see `load_variant`; a variant does not fit the model.
    """
    counter = Counter(model)
    target = Target(parameters, TOLERANCE)
    found = []
    for name in names:
        if name in BASELINES:
            found.append(Sized(load_method(name), None, f"{name}: not sized"))
            continue
        anchor = load_anchor(name, Path(), counter, target)
        turned = f"{anchor.size}, " if anchor.size else ""
        off = "" if target.meets(anchor.parameters) else f"; the nearest to {parameters:,} it comes"
        shipped = f" ({anchor.published:,} as it is)" if anchor.parameters != anchor.published else ""
        note = f"{anchor.name}: {turned}{anchor.parameters:,} parameters{shipped}{off}"
        found.append(Sized(load_method(anchor.variant), anchor.parameters, note))
    return found

"""Numerics of the merge."""

from __future__ import annotations

import torch

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, slots_of


@algebra_law(
    equation="|s| ~ 10³ ⇒ o and ∂o finite",
    source="log-sum-exp with a shift",
    sinks=True,
    size=(1e3, -1e3),
    place=("inside", "outside"),
)
def huge_scores(heads: Heads, size: float, place: str) -> None:
    """Scores of a thousand neither overflow nor turn a gradient into NaN."""
    module = heads.module({"placement": place, "memory": SLOTS})
    key, value = slots_of(module)
    key.data.fill_(size)
    out = heads.composed(module)
    gradients = torch.autograd.grad(out.sum(), [*heads.inputs().values(), key, value])
    assert bool(torch.isfinite(out).all())
    assert all(bool(torch.isfinite(g).all()) for g in gradients)

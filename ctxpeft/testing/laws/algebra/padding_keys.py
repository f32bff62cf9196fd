"""Padding is not content."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MODULES, Spec, assert_close


@algebra_law(
    equation="o(K ∪ masked) = o(K)",
    source="the algebra",
    sinks=True,
    past=True,
    module=MODULES,
    side=("left", "right"),
    count=(1, 2, 4),
)
def padding_keys(heads: Heads, module: Spec, side: str, count: int) -> None:
    """Keys that no query sees change nothing, on the left or on the right: they have no mass and are not counted."""
    built = heads.module(module)

    def padded(x: Tensor, dim: int, fill: float) -> Tensor:
        shape = [*x.shape]
        shape[dim] = count
        parts = [torch.full(shape, fill).to(x.dtype), x.detach()]
        return torch.cat(parts if side == "left" else parts[::-1], dim)

    longer = heads.changed(
        key=padded(heads.key, 2, 3.0),
        value=padded(heads.value, 2, 5.0),
        visible=padded(heads.visible, 2, 0.0),
    )
    assert_close(longer.composed(built), heads.composed(built))

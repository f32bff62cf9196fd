"""Competition without dilution: its equation."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(
    equation="ρ = σ(l + log n + b_h - L), n the content keys the query sees", source="new here", past=True
)
def length_compensation(heads: Heads) -> None:
    """`compete_length` adds the log of the number of visible content keys to the log-mass of the memory."""
    module = heads.module(
        {"placement": "inside", "merge": "compete_length", "length_bias": -1.0, "memory": SLOTS}
    )
    key, value = slots_of(module)

    def equation(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, a: float, h: int) -> Tensor:
        o, mass = naive.content_attention(q, k, v, visible, a)
        count, g = visible.sum(-1).double(), h // heads.repeat
        return naive.length_compensated(o, mass, count, q, a, key[g], value[g], module.length_bias[h, 0])

    assert_equation(heads, module, heads.per_head(equation))

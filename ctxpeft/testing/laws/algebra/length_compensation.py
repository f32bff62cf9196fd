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
    """Merge `compete_length` adds the log of the number of visible content keys to the log-mass of the memory."""
    module = heads.module(
        {"placement": "inside", "merge": "compete_length", "length_bias": -1.0, "memory": SLOTS}
    )
    key, value = slots_of(module)

    def equation(head: naive.Head) -> Tensor:
        bias = module.length_bias[head.number, 0]
        return naive.length_compensated(head, key[head.kv], value[head.kv], bias)

    assert_equation(heads, module, heads.per_head(equation))

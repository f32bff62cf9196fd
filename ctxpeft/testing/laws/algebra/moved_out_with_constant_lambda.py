"""Step 1 of the paper's construction."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import Interval, algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(
    equation="o = (1 - λ) o_X + λ softmax(a qᵀK_s) V_s",
    source="arXiv:2506.13674, eq. 4",
    constant=Interval(0.05, 0.95),
)
def moved_out_with_constant_lambda(heads: Heads, constant: float) -> None:
    """Slots outside with their own softmax and merge `mix` are the prefix moved out."""
    gate = {"kind": "constant", "value": constant}
    module = heads.module({"placement": "outside", "merge": "mix", "memory": SLOTS, "gate": gate})
    key, value = slots_of(module)

    def equation(head: naive.Head) -> Tensor:
        return naive.moved_out(head, key[head.kv], value[head.kv], constant)

    assert_equation(heads, module, heads.per_head(equation))

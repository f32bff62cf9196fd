"""The paper's tradeoff form is not another method."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(equation="o = (1 - Σⱼαⱼ) o_X + Σⱼ αⱼ vⱼ", source="arXiv:2506.13674, eq. 3", past=True)
def tradeoff_form(heads: Heads) -> None:
    """Competing inside is the tradeoff between content and prefix, the same function."""
    module = heads.module({"placement": "inside", "memory": SLOTS})
    key, value = slots_of(module)

    def equation(head: naive.Head) -> Tensor:
        g = head.kv
        return naive.tradeoff_attention(head, key[g], value[g])

    assert_equation(heads, module, heads.per_head(equation))

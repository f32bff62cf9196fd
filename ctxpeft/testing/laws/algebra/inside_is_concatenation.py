"""Prefix-Tuning, exactly."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, grouped, slots_of


@algebra_law(
    equation="o = softmax(a qᵀ[K_s; K]) [V_s; V]",
    source="Prefix-Tuning, arXiv:2101.00190",
    past=True,
    per=("kv_head", "query_head", "layer"),
)
def inside_is_concatenation(heads: Heads, per: str) -> None:
    """A module inside equals its slots put before the content under one softmax, values and every gradient."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "per": per}})
    key, value = slots_of(module)
    groups = grouped(heads, per)

    def equation(head: naive.Head) -> Tensor:
        return naive.prefix_attention(head, key[groups[head.number]], value[groups[head.number]])

    assert_equation(heads, module, heads.per_head(equation))

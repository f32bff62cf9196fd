"""Slots with a non-linear score."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, grouped, slots_of


@algebra_law(
    equation="o = softmax([s + α tanh(τ s); a qᵀK]) [V_s; V], s = a qᵀK_s",
    source="NoRGa, arXiv:2405.14124",
    past=True,
    per=("kv_head", "query_head", "layer"),
)
def norga_slots(heads: Heads, per: str) -> None:
    """Slots of score `norga` join the one softmax with NoRGa's non-linear score."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "score": "norga", "per": per}})
    key, value = slots_of(module)
    parameters, groups = dict(module.named_parameters()), grouped(heads, per)
    alpha, tau = parameters["memory.alpha"], parameters["memory.tau"]

    def equation(head: naive.Head) -> Tensor:
        g = groups[head.number]
        return naive.norga_attention(head, key[g], value[g], alpha, tau)

    assert_equation(heads, module, heads.per_head(equation))

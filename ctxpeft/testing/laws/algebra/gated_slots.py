"""Slots scaled by the token that asks."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(
    equation="o_i = softmax(a q_iᵀ[g_i ⊙ K_s; K]) [g_i ⊙ V_s; V], g_i = λ σ(W x_i + c)",
    source="APT, arXiv:2305.15212",
    past=True,
)
def gated_slots(heads: Heads) -> None:
    """Gated slots are APT's adaptive prefix, and start as the prefix."""
    gated = {"placement": "inside", "memory": {**SLOTS, "gated": True}}
    module = heads.module(gated)
    key, value = slots_of(module)
    parameters = dict(module.named_parameters())
    weight, bias, scale = (parameters[f"memory.gates.{name}"] for name in ("weight", "bias", "scale"))

    def equation(head: naive.Head) -> Tensor:
        g = head.kv
        gates = scale * torch.sigmoid(heads.hidden[head.row, 0] @ weight.T + bias)
        return naive.adaptive_prefix(head, key[g], value[g], gates)

    assert_equation(heads, module, heads.per_head(equation), hidden=heads.hidden)
    fresh, plain = (heads.module(s, moved=0.0) for s in (gated, {"placement": "inside", "memory": SLOTS}))
    assert torch.allclose(heads.composed(fresh), heads.composed(plain), rtol=1e-10, atol=1e-12)

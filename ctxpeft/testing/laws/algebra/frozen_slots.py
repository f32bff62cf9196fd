"""Slots that are not trained."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation


@algebra_law(
    equation="o = softmax(a qᵀ[K_f; K_s; K]) [V_f; V_s; V], θ = (K_s, V_s)",
    source="Cartridges, arXiv:2506.06266",
    past=True,
    frozen=(1, 2),
)
def frozen_slots(heads: Heads, frozen: int) -> None:
    """Frozen slots come before the others, take part in the softmax, are saved and are no parameters."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "frozen": frozen}})
    state = module.state_dict(keep_vars=True)
    key, value = (
        torch.cat([state[f"memory.slots.{part}"], state[f"memory.slots.trained.{part}"]], 1)
        for part in ("key", "value")
    )
    assert key.shape[1] == 3 + frozen

    def equation(head: naive.Head) -> Tensor:
        g = head.kv
        return naive.prefix_attention(head, key[g], value[g])

    assert_equation(heads, module, heads.per_head(equation))
    parameters = dict(module.named_parameters())
    assert {p.shape[1] for p in parameters.values()} == {3}
    saved = {k for k in module.state_dict() if k not in parameters}
    assert saved == {"memory.slots.key", "memory.slots.value"}

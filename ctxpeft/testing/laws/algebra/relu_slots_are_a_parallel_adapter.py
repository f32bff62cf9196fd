"""The unified view: attention adapters are parallel adapters."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_close, assert_equation, slots_of


@algebra_law(equation="o = o_X + relu(a qᵀK_sᵀ) V_s", source="He et al., arXiv:2110.04366")
def relu_slots_are_a_parallel_adapter(heads: Heads) -> None:
    """Slots under relu are He et al.'s parallel adapter of the query: a relu projection read by a matrix."""
    module = heads.module({"placement": "outside", "memory": {**SLOTS, "score": "relu"}})
    key, value = slots_of(module)

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        g = head.kv
        return o + torch.relu(head.a * head.q @ key[g].T) @ value[g]

    assert_equation(heads, module, heads.per_head(equation))
    adapter = heads.module(
        {
            "placement": "outside",
            "feature_map": {"kind": "projection", "width": 3, "activation": "relu", "bias": False},
            "phi_per": "kv_head",
            "memory": {"kind": "matrix", "per": "kv_head"},
        }
    )
    parameters = dict(adapter.named_parameters())
    parameters["feature_map.weight"].data = heads.scaling * key.transpose(1, 2)
    parameters["memory.matrix"].data = value.detach()
    assert_close(heads.composed(adapter), heads.composed(module))

"""A softmax over slots, to second order."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(
    equation="o = o_X + Σⱼ wⱼ vⱼ / Σⱼ wⱼ, wⱼ = 1 + sⱼ + sⱼ²/2 ≥ 1/2, sⱼ = qᵀkⱼ/√d",
    source="Based, arXiv:2402.18668, section 3",
)
def taylor_slots(heads: Heads) -> None:
    """Normalised kernel slots under `taylor` weigh slots by the exponential of their score to second order."""
    module = heads.module(
        {
            "placement": "outside",
            "feature_map": {"kind": "taylor", "width": None},
            "memory": {**SLOTS, "score": "kernel"},
            "normalizer": "sum",
        }
    )
    key, value = slots_of(module)

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        g = head.kv
        rows = []
        for i in range(len(head.q)):
            s = key[g] @ head.q[i] / head.q.shape[-1] ** 0.5
            weights = 1 + s + s**2 / 2
            rows.append(o[i] + weights @ value[g] / weights.sum())
        return torch.stack(rows)

    assert_equation(heads, module, heads.per_head(equation))

"""Step 2 of the paper's construction."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import Interval, algebra_law
from ctxpeft.testing.laws.problems import ELU1, SLOTS, assert_equation, slots_of


@algebra_law(
    equation="o = (1 - λ) o_X + λ φ(q)ᵀb₁ / φ(q)ᵀb₂, b₁ = Σⱼ φ(kⱼ)vⱼᵀ, b₂ = Σⱼ φ(kⱼ)",
    source="arXiv:2506.13674, eq. 5",
    constant=Interval(0.05, 0.95),
)
def kernelised_with_normalizer(heads: Heads, constant: float) -> None:
    """Kernel slots with normalizer `sum` are the kernelised prefix."""
    module = heads.module(
        {
            "placement": "outside",
            "merge": "mix",
            "feature_map": ELU1,
            "memory": {**SLOTS, "score": "kernel"},
            "normalizer": "sum",
            "gate": {"kind": "constant", "value": constant},
        }
    )
    key, value = slots_of(module)

    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        g = head.kv
        return naive.kernelised(o, phi(head.q), phi(key[g]), value[g], constant)

    assert_equation(heads, module, heads.per_head(equation))

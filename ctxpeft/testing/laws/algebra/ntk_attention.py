"""The inside twin of Prefix-Tuning+."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU1, MATRIX, assert_equation


@algebra_law(
    equation="o = (e^L o_X + φ(q)ᵀM) / (e^L + φ(q)ᵀz), z > 0", source="NTK-Attention, arXiv:2406.14036"
)
def ntk_attention(heads: Heads) -> None:
    """A matrix inside with a positive map and its normaliser is NTK-Attention."""
    query = {"scale": "inverse_fourth_root"}
    module = heads.module({"placement": "inside", "query": query, "feature_map": ELU1, "memory": MATRIX})
    parameters = dict(module.named_parameters())
    matrix, zeta = parameters["memory.matrix"], parameters["memory.zeta"]

    def equation(head: naive.Head) -> Tensor:
        o, mass = naive.content_attention(head)
        x = head.q / head.q.shape[-1] ** 0.25
        phi = torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))
        return naive.ntk_attention(
            o, mass, phi, matrix[head.number], torch.log1p(torch.exp(zeta[head.number]))
        )

    assert_equation(heads, module, heads.per_head(equation))

"""Matrices of fewer parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU, Spec, assert_equation


@algebra_law(
    equation="low rank: M = A B; diagonal: M = diag(m)",
    source="NTK-Attention, arXiv:2406.14036 (low rank)",
    form=("low_rank", "diagonal"),
    per=("query_head", "kv_head", "layer"),
)
def matrix_forms(heads: Heads, form: str, per: str) -> None:
    """A low-rank and a diagonal memory read as the full matrix they stand for."""
    if form == "diagonal" and heads.query.shape[-1] != heads.value.shape[-1]:
        form = "low_rank"
    memory: Spec = {"kind": "matrix", "form": form, "per": per}
    if form == "low_rank":
        memory["rank"] = 2
    module = heads.module({"placement": "outside", "feature_map": ELU, "memory": memory})
    parameters = dict(module.named_parameters())
    groups = heads.shape().group_of_heads(per)  # type: ignore[arg-type]

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        part = parameters["memory.matrix"][groups[head.number]]
        full = (
            torch.diag(part) if form == "diagonal" else parameters["memory.down"][groups[head.number]] @ part
        )
        return naive.prefix_tuning_plus(o, torch.nn.functional.elu(head.q), full)

    assert_equation(heads, module, heads.per_head(equation))

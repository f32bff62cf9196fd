"""The intervention of representation fine-tuning."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import grouped

CONDITION = 1e-7
"""What R may cost: it is orthonormalised by two methods, and the free rows may be nearly parallel."""


@algebra_law(
    equation="h + Rᵀ (W h + b − R h), R Rᵀ = 1",
    source="LoReFT, arXiv:2404.03592",
    rank=(1, 2, 3),
    per=("query_head", "kv_head", "layer"),
)
def loreft(heads: Heads, rank: int, per: str) -> None:
    """Memory `edit` asked with the output it is added to is LoReFT: an edit inside a subspace of orthonormal rows."""
    width = heads.value.shape[-1]
    memory = {"kind": "edit", "rank": min(rank, width), "per": per}
    module = heads.module({"placement": "outside", "query": {"source": "output"}, "memory": memory})
    declared: Any = module.spec.memory
    parameters = {k.removeprefix("memory."): p for k, p in module.named_parameters()}
    groups = grouped(heads, per)

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        added: Tensor = declared.naive(o, {name: p[groups[head.number]] for name, p in parameters.items()})
        return o + added

    expected = heads.per_head(equation)
    assert_same_with_gradients(
        heads.composed(module), expected, {**heads.inputs(), **parameters}, relative=CONDITION
    )

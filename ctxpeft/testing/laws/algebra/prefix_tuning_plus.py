"""The seed of this library."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.spec.blocks import FeatureMapSpec
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import assert_equation, grouped


@algebra_law(
    equation="o = o_X + φ(q)ᵀ M",
    source="arXiv:2506.13674, eq. 7",
    per=("query_head", "kv_head", "layer"),
    kind=("elu", "gelu", "identity"),
)
def prefix_tuning_plus(heads: Heads, per: str, kind: str) -> None:
    """A matrix outside, added without gate and normaliser, is Prefix-Tuning+."""
    memory = {"kind": "matrix", "per": per}
    module = heads.module({"placement": "outside", "feature_map": {"kind": kind}, "memory": memory})
    matrix: Tensor = module.memory.matrix  # type: ignore[assignment]
    groups, phi = grouped(heads, per), module.spec.feature_map
    assert isinstance(phi, FeatureMapSpec)

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        return naive.prefix_tuning_plus(o, phi.naive(head.q, {}), matrix[groups[head.number]])

    assert_equation(heads, module, heads.per_head(equation))

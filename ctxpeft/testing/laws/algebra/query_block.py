"""How the question is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.blocks.query import naive_query
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MATRIX, assert_equation


@algebra_law(
    equation="q' = scale(norm(source)) / τ",
    source="the algebra",
    norm=("none", "rms", "l2"),
    learned=(False, True),
    query_source=("rotated", "unrotated"),
)
def query_block(heads: Heads, norm: str, learned: bool, query_source: str) -> None:
    """The query is its source, normed, scaled and divided by the temperature."""
    query = {
        "source": query_source,
        "norm": norm,
        "scale": "inverse_sqrt",
        "temperature": 2.0,
        "learned_temperature": learned,
    }
    module = heads.module(
        {"placement": "outside", "query": query, "feature_map": {"kind": "identity"}, "memory": MATRIX}
    )
    parameters = dict(module.named_parameters())

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        x = head.q if query_source == "rotated" else heads.unrotated[head.row, head.number]
        temperature = torch.exp(parameters["query.log_temperature"][head.number, 0, 0]) if learned else 2.0
        return o + naive_query(module.spec.query, x, temperature) @ parameters["memory.matrix"][head.number]

    assert_equation(heads, module, heads.per_head(equation), unrotated=heads.unrotated)

"""Gates that look at the token, in each outside merge."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU, MATRIX, Spec, assert_equation


@algebra_law(
    equation="add: o + g r; mix: (1 - g) o + g r; scale: g o; g = σ(wᵀu + b)",
    source="UniPELT, arXiv:2110.07577; Infini-attention, arXiv:2404.07143; gated attention, arXiv:2505.06708",
    gate_source=("query", "hidden", "output", "log_mass"),
    merge=("add", "mix", "scale"),
)
def token_gates_outside(heads: Heads, gate_source: str, merge: str) -> None:
    """Each outside merge with a gate of the query, the hidden state, the content output or the content's mass."""
    gate = {"kind": "token", "source": gate_source}
    spec: Spec = {"placement": "outside", "merge": merge, "gate": gate, "memory": {"kind": "none"}}
    if merge != "scale":
        spec |= {"feature_map": ELU, "memory": MATRIX}
    module = heads.module(spec)
    parameters = dict(module.named_parameters())
    weight, bias = parameters["gate.weight"], parameters["gate.bias"]

    def equation(head: naive.Head) -> Tensor:
        o, mass = naive.content_attention(head)
        looks = {"query": head.q, "hidden": heads.hidden[head.row, 0], "output": o, "log_mass": mass[:, None]}
        g = torch.sigmoid(looks[gate_source] @ weight[head.number] + bias[head.number])[:, None]
        if merge == "scale":
            return g * o
        r = torch.nn.functional.elu(head.q) @ parameters["memory.matrix"][head.number]
        return o + g * r if merge == "add" else (1 - g) * o + g * r

    assert_equation(heads, module, heads.per_head(equation), hidden=heads.hidden)

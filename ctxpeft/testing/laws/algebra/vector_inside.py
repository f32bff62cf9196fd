"""A vector competes."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import assert_equation


@algebra_law(equation="o = (1 - ρ) o_X + ρ b, ρ = σ(ζ - L)", source="new here")
def vector_inside(heads: Heads) -> None:
    """A vector inside is one slot whose score is its learned log-mass, whatever the query."""
    module = heads.module({"placement": "inside", "memory": {"kind": "vector", "log_mass": 0.5}})
    parameters = dict(module.named_parameters())
    vector, mass = parameters["memory.vector"], parameters["memory.log_mass"]

    def equation(head: naive.Head) -> Tensor:
        o, content = naive.content_attention(head)
        rho = torch.sigmoid(mass[head.number] - content)[:, None]
        return (1 - rho) * o + rho * vector[head.number]

    assert_equation(heads, module, heads.per_head(equation))

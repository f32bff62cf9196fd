"""Where a gate acts inside."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(equation="on mass: l ← l + log g; on weight: ρ ← g ρ", source="new here", on=("weight", "mass"))
def gates_inside(heads: Heads, on: str) -> None:
    """A gate on the mass shifts the competition; a gate on the weight scales what the memory won."""
    activation = "tanh" if on == "weight" else "sigmoid"
    gate = {"kind": "scalar", "activation": activation, "on": on}
    module = heads.module({"placement": "inside", "memory": SLOTS, "gate": gate})
    key, value = slots_of(module)
    logit = dict(module.named_parameters())["gate.logit"]

    def equation(head: naive.Head) -> Tensor:
        o, content = naive.content_attention(head)
        score = head.a * head.q @ key[head.kv].T
        read, mass = torch.softmax(score, -1) @ value[head.kv], torch.logsumexp(score, -1)
        if on == "mass":
            rho = torch.sigmoid(mass + torch.log(torch.sigmoid(logit[head.number, 0, 0])) - content)[:, None]
        else:
            rho = torch.tanh(logit[head.number, 0, 0]) * torch.sigmoid(mass - content)[:, None]
        return (1 - rho) * o + rho * read

    assert_equation(heads, module, heads.per_head(equation))

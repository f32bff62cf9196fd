"""The same identity under a host's softcap and attention sinks."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks.naive import Head
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(
    equation="o = softmax([cap(a qᵀ[K_s; K]); s]) [V_s; V; 0], cap(x) = c tanh(x/c)",
    source="Gemma 2, arXiv:2408.00118 (softcap); StreamingLLM, arXiv:2309.17453 (sinks)",
    sinks=True,
    past=True,
)
def inside_with_sinks_and_softcap(heads: Heads) -> None:
    """Slots are capped as content is, and a sink takes its share of the one softmax."""
    module = heads.module({"placement": "inside", "memory": SLOTS})
    slot_k, slot_v = slots_of(module)

    def equation(head: Head) -> Tensor:
        g, rows = head.kv, []
        for i in range(len(head.q)):
            score = head.a * torch.cat([slot_k[g], head.k[head.visible[i]]]) @ head.q[i]
            if heads.softcap is not None:
                score = heads.softcap * torch.tanh(score / heads.softcap)
            if heads.sinks is not None:
                score = torch.cat([score, heads.sinks[head.number : head.number + 1]])
            values = torch.cat([slot_v[g], head.v[head.visible[i]]])
            rows.append(torch.softmax(score, 0)[: len(values)] @ values)
        return torch.stack(rows)

    assert_equation(heads, module, heads.per_head(equation))

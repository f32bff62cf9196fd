"""Several inside modules are one concatenation."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_close, slots_of


@algebra_law(
    equation="o = softmax(a qᵀ[K₁; …; K_m; K]) [V₁; …; V_m; V]",
    source="Prefix-Tuning, arXiv:2101.00190; merge by log-sum-exp as in ring attention, arXiv:2310.01889",
    past=True,
    count=(2, 3),
)
def inside_joins_one_softmax(heads: Heads, count: int) -> None:
    """All inside modules of all adapters join one softmax, in whatever order they are listed."""
    modules = [heads.module({"placement": "inside", "memory": SLOTS}, seed=i) for i in range(count)]
    key = torch.cat([slots_of(m)[0] for m in modules], 1)
    value = torch.cat([slots_of(m)[1] for m in modules], 1)

    def equation(head: naive.Head) -> Tensor:
        g = head.kv
        return naive.prefix_attention(head, key[g], value[g])

    expected = heads.per_head(equation)
    parameters = {f"{i}.{k}": p for i, m in enumerate(modules) for k, p in m.named_parameters()}
    assert_same_with_gradients(heads.composed(*modules), expected, {**heads.inputs(), **parameters})
    assert_close(heads.composed(*reversed(modules)), expected)

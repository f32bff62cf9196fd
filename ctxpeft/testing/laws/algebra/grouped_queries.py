"""Grouped-query attention without repeating a parameter."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU, ELU1, SLOTS, Spec


@algebra_law(
    equation="GQA(K, V; K_s, V_s) = MHA(repeat(K, V); repeat(K_s, V_s))",
    source="GQA, arXiv:2305.13245",
    sinks=True,
    past=True,
    spec=(
        {"placement": "inside", "memory": SLOTS},
        {"placement": "outside", "memory": SLOTS},
        {"placement": "outside", "feature_map": ELU, "memory": {"kind": "matrix"}},
        {"placement": "inside", "feature_map": ELU1, "memory": {"kind": "matrix"}},
    ),
)
def grouped_queries(heads: Heads, spec: Spec) -> None:
    """Sharing a memory over the query heads of a kv head equals repeating keys, values and memory, gradients too."""
    shared = heads.module({**spec, "memory": {**spec["memory"], "per": "kv_head"}})
    repeated: dict[str, Any] = {
        name: getattr(heads, name).repeat_interleave(heads.repeat, 1) for name in ("key", "value")
    }
    wide = heads.changed(**repeated)
    alone = wide.module({**spec, "memory": {**spec["memory"], "per": "query_head"}})
    ours = dict(shared.named_parameters())
    for name, parameter in alone.named_parameters():
        parameter.data = ours[name].detach().repeat_interleave(heads.repeat, 0)
    one, many = heads.composed(shared), wide.composed(alone)
    assert_same_with_gradients(one, many, heads.inputs())
    weights = torch.randn(one.shape, dtype=one.dtype, generator=torch.Generator().manual_seed(1))
    names = list(ours)
    mine = torch.autograd.grad((one * weights).sum(), [ours[n] for n in names])
    theirs = torch.autograd.grad((many * weights).sum(), [dict(alone.named_parameters())[n] for n in names])
    for a, b in zip(mine, theirs, strict=True):
        summed = b.reshape(a.shape[0], heads.repeat, *a.shape[1:]).sum(1)
        assert torch.allclose(a, summed, rtol=1e-9, atol=1e-9)

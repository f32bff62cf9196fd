"""Where slot keys and values come from."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, Spec


@algebra_law(
    equation="low rank: K = A_K B_K; shared: K = W₁σ(E), V = W₂σ(E)",
    source="DePT, arXiv:2309.05173; Revisiting Prefix-Tuning, arXiv:2410.02200",
    parameterization=({"kind": "low_rank", "rank": 2}, {"kind": "shared_kv", "embedding": 4}),
)
def slot_parameterizations(heads: Heads, parameterization: Spec) -> None:
    """Low-rank and shared slots are their equations, and are deployed as plain slots."""
    spec = {"placement": "inside", "memory": {**SLOTS, "parameterization": parameterization}}
    module = heads.module(spec)
    memory: Any = module.memory
    declared: Any = module.spec.memory
    parameters = dict(memory.slots.named_parameters())
    groups = heads.shape().groups("kv_head")
    found = memory.slots(heads.capture())
    pairs = [declared.parameterization.naive(parameters, g) for g in range(groups)]
    for fast, slow in zip(found, zip(*pairs, strict=True), strict=True):
        assert_same_with_gradients(fast, torch.stack(slow), parameters)
    assert memory.deployed_parameters() == found[0].numel() + found[1].numel()

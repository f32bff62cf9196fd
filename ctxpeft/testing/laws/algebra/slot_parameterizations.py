"""Where slot keys and values come from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, Spec


@algebra_law(
    equation="low rank: K = A_K B_K, V = A_V B_V; shared: K = tanh(E) W_K, V = tanh(E) W_V; "
    "mlp: [K, V] = tanh(E W₁ + b₁) W₂ + b₂",
    source="LoPA, arXiv:2405.15282; Revisiting Prefix-Tuning, arXiv:2410.02200; Prefix-Tuning, arXiv:2101.00190",
    parameterization=(
        {"kind": "low_rank", "rank": 2},
        {"kind": "shared_kv", "embedding": 4},
        {"kind": "mlp", "embedding": 4, "hidden": 3},
    ),
)
def slot_parameterizations(heads: Heads, parameterization: Spec) -> None:
    """Low-rank, shared and reparameterised slots are their equations, and are deployed as plain slots."""
    spec = {"placement": "inside", "memory": {**SLOTS, "parameterization": parameterization}}
    module = heads.module(spec)
    memory: Any = module.memory
    declared: Any = module.spec.memory
    parameters = dict(memory.slots.named_parameters())
    groups = heads.shape().groups("kv_head")
    found = memory.slots(heads.capture())
    if parameterization["kind"] == "mlp":
        pairs = _by_mlp(parameters, found[0].shape[-1], groups)
    else:
        pairs = [declared.parameterization.naive(parameters, g) for g in range(groups)]
    for fast, slow in zip(found, zip(*pairs, strict=True), strict=True):
        assert_same_with_gradients(fast, torch.stack(slow), parameters)
    assert memory.deployed_parameters() == found[0].numel() + found[1].numel()


def _by_mlp(p: dict[str, Tensor], width: int, groups: int) -> list[tuple[Tensor, Tensor]]:
    """K and V of each group, slot by slot; W2 holds the keys of all groups and then their values."""
    rows = [torch.tanh(e @ p["weight_1"] + p["bias_1"]) @ p["weight_2"] + p["bias_2"] for e in p["embedding"]]
    keys, values = (torch.stack([row[part] for row in rows]) for part in _halves(groups * width))
    wide = values.shape[-1] // groups
    return [
        (keys[:, g * width : (g + 1) * width], values[:, g * wide : (g + 1) * wide]) for g in range(groups)
    ]


def _halves(split: int) -> tuple[slice, slice]:
    return slice(None, split), slice(split, None)

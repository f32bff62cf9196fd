"""Demonstrations compiled into a memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import compose
from ctxpeft.blocks.states import TextStates
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU1, assert_close


@algebra_law(
    equation="M = Σⱼ φ(kⱼ)vⱼᵀ, z = Σⱼ φ(kⱼ) over the demonstrations",
    source="ICLCA, arXiv:2406.02847",
    shown=(1, 2, 4, 6),
)
def compiled_demonstrations(heads: Heads, shown: int) -> None:
    """Where attention is linear, a memory compiled from demonstrations equals having them in context."""
    generator = torch.Generator().manual_seed(heads.seed + 1)
    kv_heads, width, value_width = heads.key.shape[1], heads.key.shape[-1], heads.value.shape[-1]
    demo_k = torch.randn(kv_heads, shown, width, dtype=torch.float64, generator=generator)
    demo_v = torch.randn(kv_heads, shown, value_width, dtype=torch.float64, generator=generator)
    key, value = (t.detach().repeat_interleave(heads.repeat, 1) for t in (heads.key, heads.value))
    query, visible = heads.query.detach(), heads.visible[:, None]
    output, mass = _linear_attention(query, key, value, visible)
    capture = Capture(output=output, rotated=query, log_mass=lambda: mass)
    init = {"kind": "demonstrations", "text": "given as states", "method": "sum"}
    module = heads.module(
        {"placement": "inside", "feature_map": ELU1, "memory": {"kind": "matrix", "init": init}}
    )
    declared: Any = module.spec.memory
    declared.init.compile(module, [TextStates(demo_k, lambda: demo_k, demo_v, capture)])
    compiled, _ = compose(capture, [(module, None)])
    always = torch.ones(*visible.shape[:-1], shown, dtype=torch.bool)
    batch = len(query)
    joined_k, joined_v = (
        torch.cat([demo.repeat_interleave(heads.repeat, 0).expand(batch, -1, -1, -1), own], 2)
        for demo, own in ((demo_k, key), (demo_v, value))
    )
    expected, _ = _linear_attention(query, joined_k, joined_v, torch.cat([always, visible], -1))
    assert_close(compiled, expected, 1e-11)


def _linear_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """o_i = sum_j phi(q_i)^T phi(k_j) v_j / sum_j phi(q_i)^T phi(k_j) over visible j, and the log of the divisor."""
    weight = (_phi(q) @ _phi(k).transpose(-1, -2)) * visible
    return (weight @ v) / weight.sum(-1, keepdim=True), weight.sum(-1).log()


def _phi(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))

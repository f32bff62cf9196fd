"""A text written into a memory."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.states import TextStates
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU1, assert_close


@algebra_law(
    equation="M ← M + β φ(k)(v − Mᵀφ(k))ᵀ / ‖φ(k)‖², token by token; β = 1 ⇒ φ(k)ᵀM = v at once",
    source="Fast weight programmers, arXiv:2102.11174; Widrow and Hoff 1960",
    shown=(1, 2, 5),
    rate=(0.3, 1.0),
    per=("query_head", "kv_head"),
)
def delta_rule(heads: Heads, shown: int, rate: float, per: str) -> None:
    """A matrix written by the delta rule holds the last pair, and all pairs whose features are orthogonal."""
    generator = torch.Generator().manual_seed(heads.seed + 1)
    shape = (heads.key.shape[1], shown)
    key = torch.randn(*shape, heads.key.shape[-1], dtype=torch.float64, generator=generator)
    value = torch.randn(*shape, heads.value.shape[-1], dtype=torch.float64, generator=generator)
    init = {"kind": "demonstrations", "text": "given as states", "method": "delta", "rate": rate}
    for feature_map, keys in ((ELU1, key), ({"kind": "relu"}, _axes(key))):
        memory = {"kind": "matrix", "per": per, "init": init}
        module = heads.module({"placement": "outside", "feature_map": feature_map, "memory": memory})
        declared, written = module.spec, dict(module.named_parameters())["memory.matrix"]
        compiled: Any = declared.memory
        compiled.init.compile(module, [TextStates(keys, keys.clone, value, Capture(output=heads.query))])
        assert declared.feature_map is not None
        for h, group in enumerate(heads.shape().group_of_heads(per)):  # type: ignore[arg-type]
            g = h // heads.repeat
            phi = declared.feature_map.naive(keys[g], {})
            matrix = torch.zeros(phi.shape[1], value.shape[2], dtype=torch.float64)
            for f, v in zip(phi, value[g], strict=True):
                matrix = matrix + rate * torch.outer(f, v - matrix.T @ f) / (f @ f)
            assert_close(written[group].detach(), matrix)
            kept = min(shown, keys.shape[2]) if feature_map["kind"] == "relu" else 1
            if rate == 1.0:
                assert_close(phi[-kept:] @ matrix, value[g, -kept:], 1e-10)


def _axes(like: torch.Tensor) -> torch.Tensor:
    """Keys along the coordinate axes in turn: as many in a row as there are axes are orthogonal."""
    axes = torch.eye(like.shape[2], dtype=like.dtype)
    return axes[torch.arange(like.shape[1]) % len(axes)].expand_as(like)

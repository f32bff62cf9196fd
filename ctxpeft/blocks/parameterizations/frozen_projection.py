"""Slot keys and values are prompts put through the host's own frozen W_K and W_V (LLaMA-Adapter)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.blocks import InitSpec, ParameterizationSpec, SiteShape


class FrozenProjection(ParameterizationSpec):
    """K = W_K E, V = W_V E with E (P, D) in the space of hidden states; no rotary embedding on K."""

    cites: ClassVar[str] = "LLaMA-Adapter, arXiv:2303.16199"
    equation: ClassVar[str] = "K = W_K E, V = W_V E"
    per_kv_head_only: ClassVar[bool] = True
    head_site_only: ClassVar[bool] = True
    kind: Literal["frozen_projection"] = "frozen_projection"

    def build(
        self, shape: SiteShape, count: int, groups: int, key_init: InitSpec, value_init: InitSpec
    ) -> nn.Module:
        return ProjectedSlots(shape, count, key_init)


class ProjectedSlots(nn.Module):
    """E (P, D) -> K (Hkv, P, d), V (Hkv, P, dv) through the host; only the kv heads in scope are kept."""

    def __init__(self, shape: SiteShape, count: int, init: InitSpec) -> None:
        super().__init__()
        repeat = shape.query_heads // shape.kv_heads
        used = sorted({h // repeat for h in shape.heads})
        self.kv_heads = None if len(used) == shape.kv_heads else used
        self.prompt = nn.Parameter(torch.empty(count, shape.hidden_width))
        init.fill_(self.prompt.data)

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        assert capture.project_kv is not None
        key, value = capture.project_kv(self.prompt)
        if self.kv_heads is not None:
            key, value = key[self.kv_heads], value[self.kv_heads]
        return key.to(self.prompt.dtype), value.to(self.prompt.dtype)

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        return self.prompt.numel()

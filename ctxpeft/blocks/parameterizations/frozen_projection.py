"""Slot keys and values are prompts put through the host's own frozen W_K and W_V (LLaMA-Adapter)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.base import Domain, Later
from ctxpeft.spec.blocks import InitSpec, Looked, ParameterizationSpec, SlotShape


class FrozenProjection(ParameterizationSpec):
    """K = W_K E, V = W_V E with E (P, D) in the space of hidden states; no rotary embedding on K.

    hidden: where given, the prompts are non-linear, E + W_2 relu(W_1 E + b_1) + b_2 with so many hidden units, W_2 and
    b_2 starting at 0 (arXiv:2502.03029 proves non-linear prompts easier to estimate).
    """

    cites: ClassVar[str] = "LLaMA-Adapter, arXiv:2303.16199; zero-initialized attention, arXiv:2502.03029"
    equation: ClassVar[str] = "K = W_K E, V = W_V E"
    looks_at: ClassVar[tuple[Looked, ...]] = ()
    per_kv_head_only: ClassVar[bool] = True
    head_site_only: ClassVar[bool] = True
    kind: Literal["frozen_projection"] = "frozen_projection"
    hidden: Annotated[Annotated[int, Field(ge=1), Domain(4, 256, log=True)] | None, Later()] = None

    def zero_values_at_init(self, value_init: InitSpec) -> bool:
        return False

    def build(self, wanted: SlotShape) -> nn.Module:
        return ProjectedSlots(wanted, self.hidden)


class ProjectedSlots(nn.Module):
    """E (P, D) -> K (Hkv, P, d), V (Hkv, P, dv) through the host; only the kv heads in scope are kept."""

    made = projected = True

    def __init__(self, wanted: SlotShape, hidden: int | None) -> None:
        super().__init__()
        used, width = sorted(set(wanted.site.kv_head_of_heads())), wanted.site.hidden_width
        self.kv_heads = None if len(used) == wanted.site.kv_heads else used
        self.prompt = nn.Parameter(torch.empty(wanted.count, width))
        wanted.key_init.fill_(self.prompt.data)
        self.mlp: nn.Sequential | None = None
        if hidden is not None:
            last = nn.Linear(hidden, width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last)

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        assert capture.project_kv is not None
        key, value = capture.project_kv(self.hidden_states())
        if self.kv_heads is not None:
            key, value = key[self.kv_heads], value[self.kv_heads]
        return key.to(self.prompt.dtype), value.to(self.prompt.dtype)

    def hidden_states(self) -> Tensor:
        """What is projected, (P, D)."""
        return self.prompt if self.mlp is None else self.prompt + self.mlp(self.prompt)

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        return self.prompt.numel()

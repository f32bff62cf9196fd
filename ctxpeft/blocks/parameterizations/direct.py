"""Slot keys and values are the parameters themselves (P-Tuning v2, Cartridges)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.blocks import Looked, ParameterizationSpec, SlotShape


class Direct(ParameterizationSpec):
    """K (G, P, d) and V (G, P, dv) are free."""

    cites: ClassVar[str] = "P-Tuning v2, arXiv:2110.07602"
    equation: ClassVar[str] = "K, V free"
    looks_at: ClassVar[tuple[Looked, ...]] = ()
    kind: Literal["direct"] = "direct"

    def build(self, wanted: SlotShape) -> nn.Module:
        return DirectSlots(wanted)


class DirectSlots(nn.Module):
    """K (G, P, d), V (G, P, dv)."""

    alone = True

    def __init__(self, wanted: SlotShape) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(wanted.keys()))
        self.value = nn.Parameter(torch.empty(wanted.values()))
        wanted.key_init.fill_(self.key.data)
        wanted.value_init.fill_(self.value.data)

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        return self.key, self.value

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        return self.key.numel() + self.value.numel()

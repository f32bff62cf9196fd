"""Slot keys and values are the parameters themselves (P-Tuning v2, Cartridges)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.blocks import InitSpec, ParameterizationSpec, SiteShape


class Direct(ParameterizationSpec):
    """K (G, P, d) and V (G, P, dv) are free."""

    cites: ClassVar[str] = "P-Tuning v2, arXiv:2110.07602"
    equation: ClassVar[str] = "K, V free"
    kind: Literal["direct"] = "direct"

    def build(
        self, shape: SiteShape, count: int, groups: int, key_init: InitSpec, value_init: InitSpec
    ) -> nn.Module:
        return DirectSlots(shape, count, groups, key_init, value_init)


class DirectSlots(nn.Module):
    """K (G, P, d), V (G, P, dv)."""

    def __init__(
        self, shape: SiteShape, count: int, groups: int, key_init: InitSpec, value_init: InitSpec
    ) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(groups, count, shape.source_width))
        self.value = nn.Parameter(torch.empty(groups, count, shape.value_width))
        key_init.fill_(self.key.data)
        value_init.fill_(self.value.data)

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        return self.key, self.value

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        return self.key.numel() + self.value.numel()

"""phi(x) = (x W1) ⊙ (x W2)"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.feature_maps.grouped import TwoProjections
from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class Hadamard(FeatureMapSpec):
    """Products of two learned projections; with a matrix, any quadratic forms of the query of rank up to `width`."""

    cites: ClassVar[str] = "HadamardFeatureMap of flash-linear-attention"
    equation: ClassVar[str] = "(x W₁) ⊙ (x W₂)"
    learned: ClassVar[bool] = True
    kind: Literal["hadamard"] = "hadamard"
    width: Annotated[int, Field(ge=1), Domain(1, 256, log=True)] = 64

    def out_width(self, width: int) -> int:
        return self.width

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedHadamard(width, self.width, groups)

    def written(self, argument: str) -> str:
        """(x W1 ⊙ x W2)"""
        return f"({argument} W₁ ⊙ {argument} W₂)"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, width) with W1 and W2 (d, width)."""
        pairs = zip(params["first"].T, params["second"].T, strict=True)
        return torch.stack([(x @ first) * (x @ second) for first, second in pairs], -1)


class GroupedHadamard(TwoProjections):
    """W1 and W2 (G, d, width) at N(0, 1/d)."""

    def forward(self, x: Tensor) -> Tensor:
        return grouped(x, self.first) * grouped(x, self.second)

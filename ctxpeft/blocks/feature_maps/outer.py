"""phi(x) = triu(x W1 ⊗ x W2)"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.feature_maps.grouped import TwoProjections, upper_products
from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class Outer(FeatureMapSpec):
    """y_i z_j for i <= j of two learned projections y and z of `width` coordinates: a learned sketch of degree two.

    phi has width (width + 1) / 2 entries.
    """

    cites: ClassVar[str] = (
        "LearnableOuterProductFeatureMap of flash-linear-attention; PolySketchFormer, arXiv:2310.01655"
    )
    equation: ClassVar[str] = "triu(x W₁ ⊗ x W₂)"
    learned: ClassVar[bool] = True
    kind: Literal["outer"] = "outer"
    width: Annotated[int, Field(ge=1), Domain(1, 32, log=True)] = 8

    def out_width(self, width: int) -> int:
        return self.width * (self.width + 1) // 2

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedOuter(width, self.width, groups)

    def written(self, argument: str) -> str:
        """triu(x W1 ⊗ x W2)"""
        return f"triu({argument} W₁ ⊗ {argument} W₂)"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, width (width + 1) / 2) with W1 and W2 (d, width)."""
        y, z = x @ params["first"], x @ params["second"]
        return torch.stack([y[:, i] * z[:, j] for i in range(self.width) for j in range(i, self.width)], -1)


class GroupedOuter(TwoProjections):
    """W1 and W2 (G, d, width) at N(0, 1/d)."""

    def forward(self, x: Tensor) -> Tensor:
        return upper_products(grouped(x, self.first), grouped(x, self.second))

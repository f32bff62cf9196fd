"""phi(x) = ((x W1)² + x² W2) / √2"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.feature_maps.grouped import TwoProjections
from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class AllPoly(FeatureMapSpec):
    """Squares of a learned projection and a learned projection of squares: quadratic forms of rank one plus a diagonal,
    at the width one chooses instead of all d (d + 1) / 2 products."""

    cites: ClassVar[str] = "AllPolyMap of HazyResearch/zoology; Based, arXiv:2402.18668"
    equation: ClassVar[str] = "((x W₁)² + x² W₂) / √2"
    learned: ClassVar[bool] = True
    kind: Literal["all_poly"] = "all_poly"
    width: Annotated[int, Field(ge=1), Domain(1, 256, log=True)] = 64

    def out_width(self, width: int) -> int:
        return self.width

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedAllPoly(width, self.width, groups)

    def written(self, argument: str) -> str:
        """((x W1)² + x² W2)/√2"""
        return f"(({argument} W₁)² + {argument}² W₂)/√2"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, width) with W1 and W2 (d, width)."""
        forms = [
            torch.outer(first, first) + torch.diag(second)
            for first, second in zip(params["first"].T, params["second"].T, strict=True)
        ]
        return torch.stack([(x @ form * x).sum(-1) for form in forms], -1) / 2**0.5


class GroupedAllPoly(TwoProjections):
    """W1 and W2 (G, d, width) at N(0, 1/d)."""

    def forward(self, x: Tensor) -> Tensor:
        return (grouped(x, self.first).square() + grouped(x.square(), self.second)) * 2**-0.5

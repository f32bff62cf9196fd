"""phi(x) = [1, y, y_i² / √2, y_i y_j], y = x W / r^(1/4): the exponential to second order."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.feature_maps.grouped import linear_weight, quadratic
from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Sign


class Taylor(FeatureMapSpec):
    """φ(q)ᵀφ(k) = 1 + t + t²/2 exactly, with t = (q W)ᵀ(k W) / √r and W a learned projection to r = `width`.

    Features are signed and the kernel is not: it is ((1 + t)² + 1)/2, at least 1/2.
    width: null leaves the projection out; then r = d, t = qᵀk / √d, and nothing is learned. phi has
    1 + r + r (r + 1) / 2 entries: 153 for r = 16, 2,145 for r = 64.
    """

    cites: ClassVar[str] = "Based, arXiv:2402.18668"
    equation: ClassVar[str] = "[1, y, yᵢ² / √2, yᵢ yⱼ (i < j)], y = x W / r^(1/4)"
    sign: ClassVar[Sign] = "positive_kernel"
    learned: ClassVar[bool] = True
    kind: Literal["taylor"] = "taylor"
    width: Annotated[int, Field(ge=1), Domain(1, 32, log=True)] | None = 16

    def out_width(self, width: int) -> int:
        r = self.width or width
        return 1 + r + r * (r + 1) // 2

    def has_parameters(self) -> bool:
        return self.width is not None

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedTaylor(width, self.width, groups)

    def written(self, argument: str) -> str:
        """taylor(x W), or taylor(x) without a projection"""
        return f"taylor({argument})" if self.width is None else f"taylor({argument} W)"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, 1 + r + r (r + 1) / 2) with W (d, r)."""
        y = x if self.width is None else x @ params["weight"]
        r = y.shape[-1]
        y = y / r**0.25
        squares = [y[:, i] ** 2 / 2**0.5 for i in range(r)]
        products = [y[:, i] * y[:, j] for i in range(r) for j in range(i + 1, r)]
        return torch.cat([torch.ones_like(y[:, :1]), y, torch.stack([*squares, *products], -1)], -1)


class GroupedTaylor(nn.Module):
    """W (G, d, r) at N(0, 1/d), or none."""

    def __init__(self, width: int, out: int | None, groups: int) -> None:
        super().__init__()
        self.weight = None if out is None else linear_weight(groups, width, out)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.weight is None else grouped(x, self.weight)
        y = y * y.shape[-1] ** -0.25
        return torch.cat([torch.ones_like(y[..., :1]), y, 2**-0.5 * quadratic(y)], -1)

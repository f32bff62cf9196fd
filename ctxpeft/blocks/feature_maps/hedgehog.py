"""phi(x) = softmax([2(x W + b), -2(x W + b)]), W = I and b = 0 at the start."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.products import grouped
from ctxpeft.spec.blocks import FeatureMapSpec


class Hedgehog(FeatureMapSpec):
    """Spiky, monotone and positive; sums to one, so it needs no normaliser to stay bounded."""

    cites: ClassVar[str] = "Hedgehog, arXiv:2402.04347"
    equation: ClassVar[str] = "softmax([2(x W + b), -2(x W + b)])"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    bounded: ClassVar[bool] = True
    learned: ClassVar[bool] = True
    kind: Literal["hedgehog"] = "hedgehog"

    def out_width(self, width: int) -> int:
        return 2 * width

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedHedgehog(width, groups)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, 2d) with W (d, d) and b (d)."""
        y = 2 * (x @ params["weight"] + params["bias"])
        e = torch.cat([torch.exp(y), torch.exp(-y)], -1)
        return e / e.sum(-1, keepdim=True)


class GroupedHedgehog(nn.Module):
    """W (G, d, d), b (G, d)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width).repeat(groups, 1, 1))
        self.bias = nn.Parameter(torch.zeros(groups, width))

    def forward(self, x: Tensor) -> Tensor:
        y = 2 * (grouped(x, self.weight) + self.bias[:, None])
        return torch.softmax(torch.cat([y, -y], -1), -1)

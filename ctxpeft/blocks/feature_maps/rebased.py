"""phi(x) = [y_i², √2 y_i y_j] / √r, y = γ ⊙ norm(x W) + β: quadratic only, and it can reach zero."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.feature_maps.grouped import linear_weight, quadratic
from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Sign

EPS = 1e-5


class Rebased(FeatureMapSpec):
    """φ(q)ᵀφ(k) = (yᵀz)² / r of the layer-normed, affinely moved query y and key z: unlike taylor's, it can be zero.

    Features are signed and the kernel, a square, is not.
    W is a learned projection to r = `width`; null leaves it out, then r = d. γ starts at 1 and β at 0. phi has
    r (r + 1) / 2 entries.
    """

    cites: ClassVar[str] = "ReBased, arXiv:2402.10644"
    equation: ClassVar[str] = "[yᵢ², √2 yᵢ yⱼ (i < j)] / √r, y = γ ⊙ norm(x W) + β"
    sign: ClassVar[Sign] = "positive_kernel"
    learned: ClassVar[bool] = True
    kind: Literal["rebased"] = "rebased"
    width: Annotated[int, Field(ge=1), Domain(1, 32, log=True)] | None = 16

    def out_width(self, width: int) -> int:
        r = self.width or width
        return r * (r + 1) // 2

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedRebased(width, self.width, groups)

    def written(self, argument: str) -> str:
        """rebased(x W), or rebased(x) without a projection"""
        return f"rebased({argument})" if self.width is None else f"rebased({argument} W)"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, r (r + 1) / 2) with W (d, r), gamma (r), beta (r)."""
        y = x if self.width is None else x @ params["weight"]
        r = y.shape[-1]
        centred = y - y.mean(-1, keepdim=True)
        y = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + EPS) * params["gamma"] + params["beta"]
        squares = [y[:, i] ** 2 for i in range(r)]
        products = [2**0.5 * y[:, i] * y[:, j] for i in range(r) for j in range(i + 1, r)]
        return torch.stack([*squares, *products], -1) / math.sqrt(r)


class GroupedRebased(nn.Module):
    """W (G, d, r) at N(0, 1/d) or none, gamma and beta (G, r)."""

    def __init__(self, width: int, out: int | None, groups: int) -> None:
        super().__init__()
        self.weight = None if out is None else linear_weight(groups, width, out)
        self.gamma = nn.Parameter(torch.ones(groups, out or width))
        self.beta = nn.Parameter(torch.zeros(groups, out or width))

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.weight is None else grouped(x, self.weight)
        y = functional.layer_norm(y, y.shape[-1:], eps=EPS) * self.gamma[:, None] + self.beta[:, None]
        return quadratic(y) / math.sqrt(y.shape[-1])

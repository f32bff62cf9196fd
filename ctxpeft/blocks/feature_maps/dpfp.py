"""phi(x) = [r_i r_(i+j)] for j = 1..nu, with r = [relu(x), relu(-x)]."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class Dpfp(FeatureMapSpec):
    """Products of neighbours among the 2d rectified coordinates, indices modulo 2d: sparse, nearly orthogonal keys.

    Grows with the square of the query. This is the paper's r = [relu(x), relu(-x)], which is never negative; early
    versions of flash-linear-attention compute -relu(x) in the second half.
    """

    cites: ClassVar[str] = (
        "Fast weight programmers, arXiv:2102.11174, deterministic parameter-free projection"
    )
    equation: ClassVar[str] = "rᵢ rᵢ₊ⱼ, j = 1..ν, r = [relu(x), relu(−x)]"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    kind: Literal["dpfp"] = "dpfp"
    nu: Annotated[int, Field(ge=1), Domain(1, 4)] = 1

    def out_width(self, width: int) -> int:
        return 2 * width * self.nu

    def build(self, width: int, groups: int) -> nn.Module:
        return NeighbourProducts(self.nu)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, 2 d nu): all products of distance 1, then those of distance 2, and so on."""
        r = torch.cat([x.clamp(min=0), (-x).clamp(min=0)], -1)
        n = r.shape[-1]
        return torch.stack([r[:, i] * r[:, (i + j) % n] for j in range(1, self.nu + 1) for i in range(n)], -1)


class NeighbourProducts(nn.Module):
    """(..., d) -> (..., 2 d nu)."""

    def __init__(self, nu: int) -> None:
        super().__init__()
        self.nu = nu

    def forward(self, x: Tensor) -> Tensor:
        r = functional.relu(torch.cat([x, -x], -1))
        return torch.cat([r * r.roll(-j, -1) for j in range(1, self.nu + 1)], -1)

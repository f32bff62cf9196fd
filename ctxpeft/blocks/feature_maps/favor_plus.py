"""phi(x) = exp(y W - ‖y‖²/2) / √m, y = x / d^(1/4), W random, orthogonal and fixed."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class FavorPlus(FeatureMapSpec):
    """φ(q)ᵀφ(k) is an unbiased, positive estimate of exp(qᵀk / √d): the softmax score, with m = `width` features.

    Each row of W is Gaussian; rows are orthogonal in blocks of d. W is drawn once, saved, never trained and never
    redrawn. The exponent is formed before the one exponential and is at most ‖w‖²/2, about d/2: a long query does not
    overflow but loses its features to underflow. The variance grows with exp(‖q + k‖² / √d): give the query a norm.
    """

    cites: ClassVar[str] = "Performers, arXiv:2009.14794"
    equation: ClassVar[str] = "exp(y W − ‖y‖²/2) / √m, y = x d^(−1/4), rows of W orthogonal, N(0, 1)"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    random: ClassVar[bool] = True
    kind: Literal["favor_plus"] = "favor_plus"
    width: Annotated[int, Field(ge=1), Domain(8, 512, log=True)] = 64

    def out_width(self, width: int) -> int:
        return self.width

    def build(self, width: int, groups: int) -> nn.Module:
        return PositiveRandomFeatures(self.width, width, groups)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, m) with W (m, d)."""
        y = x / x.shape[-1] ** 0.25
        half = (y * y).sum(-1) / 2
        return torch.stack([torch.exp(y @ w - half) / self.width**0.5 for w in params["projection"]], -1)


class PositiveRandomFeatures(nn.Module):
    """W (G, m, d), a saved buffer."""

    projection: Tensor

    def __init__(self, count: int, width: int, groups: int) -> None:
        super().__init__()
        self.register_buffer("projection", orthogonal_gaussian(groups, count, width))

    def forward(self, x: Tensor) -> Tensor:
        y = x / math.sqrt(math.sqrt(x.shape[-1]))
        score = grouped(y, self.projection.transpose(1, 2)) - y.square().sum(-1, keepdim=True) / 2
        return torch.exp(score) / math.sqrt(self.projection.shape[-2])


def orthogonal_gaussian(groups: int, count: int, width: int) -> Tensor:
    """(G, count, width): each row N(0, I), the rows of each block of `width` orthogonal to one another.

    Directions are Haar: Q of a Gaussian matrix, with the signs that make the diagonal of R positive. Lengths are
    those of independent Gaussian vectors. On the meta device the shape alone.
    """
    lengths: Tensor = torch.linalg.vector_norm(torch.randn(groups, count, width), dim=-1, keepdim=True)
    if lengths.is_meta:
        return torch.empty(groups, count, width)
    directions: list[Tensor] = []
    for start in range(0, count, width):
        q, r = torch.linalg.qr(torch.randn(groups, width, min(width, count - start)))
        signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
        directions.append((q * signs[:, None]).transpose(-2, -1))
    return torch.cat(directions, -2) * lengths

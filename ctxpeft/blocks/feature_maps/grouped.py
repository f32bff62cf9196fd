"""What learned maps share: a linear map with one matrix a group, and products of coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear_weight(groups: int, width: int, out: int) -> nn.Parameter:
    """W (G, width, out) at N(0, 1/width): coordinates of size 1 stay of size 1."""
    return nn.Parameter(torch.randn(groups, width, out) * width**-0.5)


class TwoProjections(nn.Module):
    """W1 and W2 (G, d, width) at N(0, 1/d)."""

    def __init__(self, width: int, out: int, groups: int) -> None:
        super().__init__()
        self.first = linear_weight(groups, width, out)
        self.second = linear_weight(groups, width, out)


def upper_products(y: Tensor, z: Tensor, offset: int = 0) -> Tensor:
    """y_i z_j for i + offset <= j, row by row: (..., r) and (..., r) -> (..., r (r + 1) / 2) for offset 0."""
    i, j = torch.triu_indices(y.shape[-1], y.shape[-1], offset, device=y.device)
    return y[..., i] * z[..., j]


def quadratic(y: Tensor) -> Tensor:
    """[y_i², √2 y_i y_j for i < j], so that quadratic(y)ᵀ quadratic(z) = (yᵀz)²: (..., r) -> (..., r (r + 1) / 2)."""
    return torch.cat([y.square(), 2**0.5 * upper_products(y, y, offset=1)], -1)

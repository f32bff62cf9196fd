"""phi(x)_i = x_i if x_i is among the k largest entries, else 0."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class TopK(FeatureMapSpec):
    """The k largest entries of each query by value, not by size, and zero elsewhere; the gradient flows through them.

    Signed: where fewer than k entries are positive, negative ones are kept. With k of at least d it is the identity.
    Each query reads k rows of the memory, so capacity is no longer tied to what one read mixes.
    """

    cites: ClassVar[str] = "k-sparse autoencoders, arXiv:1312.5663"
    equation: ClassVar[str] = "xᵢ if xᵢ is among the k largest, else 0"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    kind: Literal["top_k"] = "top_k"
    k: Annotated[int, Field(ge=1), Domain(1, 64, log=True)] = 8

    def out_width(self, width: int) -> int:
        return width

    def build(self, width: int, groups: int) -> nn.Module:
        return LargestEntries(self.k)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d); no ties."""
        rank = (x[:, None, :] > x[:, :, None]).sum(-1)
        return torch.where(rank < self.k, x, torch.zeros_like(x))


class LargestEntries(nn.Module):
    """(..., d) -> (..., d). Of equal entries at the border, k in all are kept."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        kept = x.topk(min(self.k, x.shape[-1]), -1)
        return torch.zeros_like(x).scatter(-1, kept.indices, kept.values)

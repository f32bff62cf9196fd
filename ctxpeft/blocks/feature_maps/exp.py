"""phi(x)_i = exp(x_i - max_j x_j)"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Exp(ElementwiseSpec):
    """The softmax over coordinates without its denominator: the largest entry is exactly 1, none is below 0.

    The maximum is part of the map, in the values and in the gradient; it makes phi blind to a constant added to all
    coordinates, and no query can overflow it or lose its mass.
    """

    cites: ClassVar[str] = "exp_dim of HazyResearch/zoology, arXiv:2402.04347"
    equation: ClassVar[str] = "exp(xᵢ − maxⱼ xⱼ)"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    bounded: ClassVar[bool] = True
    kind: Literal["exp"] = "exp"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return torch.exp(x - x.amax(-1, keepdim=True))

    def written(self, argument: str) -> str:
        """exp(x - max x)"""
        return f"exp({argument} − max {argument})"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return torch.stack([torch.exp(row - row.max()) for row in x])

"""phi(x) = max(x, 0)²"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class SquaredRelu(ElementwiseSpec):
    """Zero or more, and growing with the square of the query: give the query a norm."""

    cites: ClassVar[str] = "Primer, arXiv:2109.08668"
    equation: ClassVar[str] = "max(x, 0)²"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    kind: Literal["squared_relu"] = "squared_relu"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return functional.relu(x).square()

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return torch.where(x > 0, x * x, torch.zeros_like(x))

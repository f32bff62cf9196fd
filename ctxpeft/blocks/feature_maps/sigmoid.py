"""phi(x) = 1 / (1 + exp(-x))"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Sigmoid(ElementwiseSpec):
    """Positive and below one; one half everywhere at q = 0, so the memory has a constant part."""

    cites: ClassVar[str] = "SigmoidFeatureMap of flash-linear-attention"
    equation: ClassVar[str] = "1 / (1 + exp(-x))"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    bounded: ClassVar[bool] = True
    kind: Literal["sigmoid"] = "sigmoid"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return 1 / (1 + torch.exp(-x))

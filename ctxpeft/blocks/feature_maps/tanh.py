"""phi(x) = tanh(x)"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Tanh(ElementwiseSpec):
    """Odd and within (-1, 1): a large query saturates instead of dominating the read."""

    cites: ClassVar[str] = "no paper; the bounded odd map"
    equation: ClassVar[str] = "tanh(x)"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    bounded: ClassVar[bool] = True
    kind: Literal["tanh"] = "tanh"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return torch.tanh(x)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))

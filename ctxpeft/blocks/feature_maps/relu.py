"""phi(x) = max(x, 0)"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Relu(ElementwiseSpec):
    """Zero or more; a query of negative coordinates only has no mass."""

    cites: ClassVar[str] = "Parallel adapters, arXiv:2110.04366"
    equation: ClassVar[str] = "max(x, 0)"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    kind: Literal["relu"] = "relu"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return functional.relu(x)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return torch.where(x > 0, x, torch.zeros_like(x))

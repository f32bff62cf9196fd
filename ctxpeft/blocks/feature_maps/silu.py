"""phi(x) = x sigmoid(x)"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Silu(ElementwiseSpec):
    """Smooth, signed, unbounded above."""

    cites: ClassVar[str] = "Swish, arXiv:1710.05941"
    equation: ClassVar[str] = "x sigmoid(x)"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    kind: Literal["silu"] = "silu"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return functional.silu(x)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return x / (1 + torch.exp(-x))

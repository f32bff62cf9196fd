"""phi(x) = x Phi(x)"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Gelu(ElementwiseSpec):
    """Slightly better than elu in four of six cells of the paper's table."""

    cites: ClassVar[str] = "Prefix-Tuning+, arXiv:2506.13674, table of feature maps"
    equation: ClassVar[str] = "x Phi(x)"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    kind: Literal["gelu"] = "gelu"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        if x.ndim == 4 and x.shape[2] == 1:
            # of what lies in order torch asks oneDNN, which takes longer to begin than few numbers take
            return functional.gelu(x.transpose(1, 3)).transpose(1, 3)
        return functional.gelu(x)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

"""phi(x) = x if x > 0 else exp(x) - 1"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Elu(ElementwiseSpec):
    """The default of Prefix-Tuning+ (plain elu, not elu + 1): signed, above -1."""

    cites: ClassVar[str] = "Prefix-Tuning+, arXiv:2506.13674, section 4"
    equation: ClassVar[str] = "x if x > 0 else exp(x) - 1"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    kind: Literal["elu"] = "elu"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return functional.elu(x)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return torch.where(x > 0, x, torch.exp(torch.clamp(x, max=0)) - 1)

"""phi(x) = x + 1 if x > 0 else exp(x)"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class EluPlusOne(ElementwiseSpec):
    """Positive, so it can be normalised and can compete inside; NTK-Attention scales x by d^-1/4 first."""

    cites: ClassVar[str] = "Transformers are RNNs, arXiv:2006.16236"
    equation: ClassVar[str] = "x + 1 if x > 0 else exp(x)"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    kind: Literal["elu_plus_one"] = "elu_plus_one"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return functional.elu(x) + 1

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return torch.where(x > 0, x + 1, torch.exp(torch.clamp(x, max=0)))

"""phi(x) = x"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Identity(ElementwiseSpec):
    """The linear read: o + q^T M."""

    cites: ClassVar[str] = "linear attention without a map, arXiv:2102.11174"
    equation: ClassVar[str] = "x"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    kind: Literal["identity"] = "identity"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return x

    def written(self, argument: str) -> str:
        """x"""
        return argument

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return x

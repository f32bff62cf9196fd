"""phi(x) = x²"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ctxpeft.blocks.feature_maps.elementwise import ElementwiseSpec


class Square(ElementwiseSpec):
    """Even and zero or more: q and -q are one query. Grows with the square of the query: give the query a norm."""

    cites: ClassVar[str] = "SLiM Performer, arXiv:2012.11346"
    equation: ClassVar[str] = "x²"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    kind: Literal["square"] = "square"

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return x.square()

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d)."""
        return x * x

"""phi(x) = 1: the memory becomes a constant bias."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from ctxpeft.spec.blocks import FeatureMapSpec


class One(FeatureMapSpec):
    """The constant map. With it Prefix-Tuning+ is one bias vector a head, the limit that BitFit and steering reach."""

    cites: ClassVar[str] = "BitFit, arXiv:2106.10199"
    equation: ClassVar[str] = "1"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    bounded: ClassVar[bool] = True
    kind: Literal["one"] = "one"

    def out_width(self, width: int) -> int:
        return 1

    def build(self, width: int, groups: int) -> nn.Module:
        return Ones()

    def written(self, argument: str) -> str:
        """1"""
        return "1"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, 1)."""
        return x.new_ones(x.shape[0], 1)


class Ones(nn.Module):
    """(..., d) -> (..., 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_ones(*x.shape[:-1], 1)

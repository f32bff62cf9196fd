"""phi(x) = softmax(x), or [softmax(x), softmax(-x)]"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.spec.blocks import FeatureMapSpec


class Softmax(FeatureMapSpec):
    """The softmax over the coordinates of one query; sums to 1, so it needs no normaliser to stay bounded.

    both: put softmax(-x) beside it, so that large negative coordinates are seen too; phi is then twice as wide and
    sums to 2.
    """

    cites: ClassVar[str] = (
        "Efficient Attention, arXiv:1812.01243; with its negative, Hedgehog, arXiv:2402.04347"
    )
    equation: ClassVar[str] = "softmax(x), or [softmax(x), softmax(−x)]"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    bounded: ClassVar[bool] = True
    kind: Literal["softmax"] = "softmax"
    both: bool = False

    def out_width(self, width: int) -> int:
        return 2 * width if self.both else width

    def build(self, width: int, groups: int) -> nn.Module:
        return SoftmaxMap(self.both)

    def written(self, argument: str) -> str:
        """softmax(x) or [softmax(x), softmax(-x)]"""
        one = f"softmax({argument})"
        return f"[{one}, softmax(−{argument})]" if self.both else one

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d), or (N, 2d)."""
        signs = (x, -x) if self.both else (x,)
        return torch.cat([torch.exp(s) / torch.exp(s).sum(-1, keepdim=True) for s in signs], -1)


class SoftmaxMap(nn.Module):
    """(..., d) -> (..., d) or (..., 2d)."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        one = torch.softmax(x, -1)
        return torch.cat([one, torch.softmax(-x, -1)], -1) if self.both else one

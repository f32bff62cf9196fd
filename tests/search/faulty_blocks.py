"""A user's package of feature maps that go wrong in training, each in a way of its own; see `test_failures.py`."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.spec.blocks import FeatureMapSpec


class Faulty(FeatureMapSpec):
    """The identity, until it is trained."""

    equation: ClassVar[str] = "x"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    bounded: ClassVar[bool] = False
    learned: ClassVar[bool] = False

    def out_width(self, width: int) -> int:
        return width

    def written(self, argument: str) -> str:
        return argument

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        return x

    def build(self, width: int, groups: int) -> nn.Module:
        return FaultyMap(self.kind)


class Raising(Faulty):
    """A block with a mistake in it."""

    kind: Literal["raising"] = "raising"


class Nan(Faulty):
    """A block that divides zero by zero."""

    kind: Literal["nan"] = "nan"


class Greedy(Faulty):
    """A block that asks for more memory than there is."""

    kind: Literal["greedy"] = "greedy"


class FaultyMap(nn.Module):
    """What the three do."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "raising":
            raise KeyError("the user's own mistake")
        if self.kind == "nan":
            return x * (x - x) / (x - x)
        return x + torch.zeros(1 << 50).sum()

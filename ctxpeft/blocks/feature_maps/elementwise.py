"""Base of the maps that act on each coordinate alone and have no parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from ctxpeft.spec.blocks import FeatureMapSpec


class ElementwiseSpec(FeatureMapSpec):
    """phi(x)_i = f(x_i)."""

    def out_width(self, width: int) -> int:
        return width

    @staticmethod
    @abstractmethod
    def apply(x: Tensor) -> Tensor:
        """f, fast."""

    def build(self, width: int, groups: int) -> nn.Module:
        return Elementwise(type(self).apply)


class Elementwise(nn.Module):
    """A parameterless map; holds the function, not the spec."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

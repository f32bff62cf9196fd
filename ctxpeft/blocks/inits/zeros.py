"""Zeros: the read starts at nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from ctxpeft.spec.blocks import InitSpec


class Zeros(InitSpec):
    """Every entry is 0."""

    equation: ClassVar[str] = "0"
    kind: Literal["zeros"] = "zeros"

    def is_zero(self) -> bool:
        return True

    def fill_(self, tensor: Tensor) -> None:
        nn.init.zeros_(tensor)

"""No gate: g = 1."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.blocks import GateSpec, Looked, SiteShape


class NoGate(GateSpec):
    """The read enters as it is."""

    equation: ClassVar[str] = "g = 1"
    kind: Literal["none"] = "none"

    def is_positive(self) -> bool:
        return True

    def written(self, query: str, output: str) -> tuple[str, str]:
        return "1", ""

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def build(self, shape: SiteShape) -> nn.Module:
        return Ungated()


class Ungated(nn.Module):
    """Says that there is nothing to multiply."""

    def forward(self, capture: Capture, query: Tensor) -> Tensor | None:
        return None

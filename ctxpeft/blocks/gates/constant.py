"""A fixed number: the paper's constant lambda."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, compute_dtype
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import GateSpec, Looked, SiteShape


class Constant(GateSpec):
    """g = value, not trained."""

    cites: ClassVar[str] = "Prefix-Tuning+, arXiv:2506.13674, eq. 4"
    equation: ClassVar[str] = "g = λ"
    kind: Literal["constant"] = "constant"
    value: Annotated[float, Domain(0.01, 1.0, log=True)] = 0.5

    def is_zero_at_init(self) -> bool:
        return self.value == 0

    def is_one_at_init(self) -> bool:
        return self.value == 1

    def is_positive(self) -> bool:
        return self.value > 0

    def written(self, query: str, output: str) -> tuple[str, str]:
        return f"{self.value:g}", ""

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def build(self, shape: SiteShape) -> nn.Module:
        return ConstantGate(self.value, shape)


class ConstantGate(nn.Module):
    """One number for all rows, heads and tokens."""

    value: Tensor

    def __init__(self, value: float, shape: SiteShape) -> None:
        super().__init__()
        number = torch.full((1, 1, 1, 1), value, dtype=compute_dtype(shape.dtype), device=shape.device)
        self.register_buffer("value", number, persistent=False)

    def forward(self, capture: Capture, query: Tensor) -> Tensor | None:
        return self.value

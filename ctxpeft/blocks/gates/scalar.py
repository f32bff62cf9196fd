"""A learned number per layer, head or channel."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.gates.activation import (
    ACTIVATIONS,
    ONE_AT,
    POSITIVE,
    ZERO_AT_ZERO,
    Activation,
    written_activation,
)
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import GateSpec, Looked, SiteShape


class Scalar(GateSpec):
    """g = f(a), a starting at `init`: tanh with init 0 is LLaMA-Adapter's gate, sigmoid is Infini-attention's beta."""

    cites: ClassVar[str] = "LLaMA-Adapter, arXiv:2303.16199; Infini-attention, arXiv:2404.07143"
    equation: ClassVar[str] = "g = f(a)"
    kind: Literal["scalar"] = "scalar"
    activation: Activation = "tanh"
    per: Literal["layer", "head", "channel"] = "head"
    init: Annotated[float, Domain(-4.0, 4.0)] = 0.0

    def is_zero_at_init(self) -> bool:
        return self.init == 0 and self.activation in ZERO_AT_ZERO

    def is_one_at_init(self) -> bool:
        return self.init == ONE_AT.get(self.activation)

    def is_positive(self) -> bool:
        return self.activation in POSITIVE

    def per_channel(self) -> bool:
        return self.per == "channel"

    def written(self, query: str, output: str) -> tuple[str, str]:
        return "g", written_activation(self.activation, "a")

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def build(self, shape: SiteShape) -> nn.Module:
        return ScalarGate(self, shape)


class ScalarGate(nn.Module):
    """a (1, 1, 1), (H, 1, 1) or (H, 1, dv)."""

    def __init__(self, spec: Scalar, shape: SiteShape) -> None:
        super().__init__()
        heads = 1 if spec.per == "layer" else len(shape.heads)
        width = shape.value_width if spec.per == "channel" else 1
        self.activation = spec.activation
        self.logit = nn.Parameter(torch.full((heads, 1, width), spec.init))

    def forward(self, capture: Capture, query: Tensor) -> Tensor | None:
        return ACTIVATIONS[self.activation](self.logit)[None]

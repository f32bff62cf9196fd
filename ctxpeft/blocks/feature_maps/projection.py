"""phi(x) = f(x W + b), learned: T2R with relu, the MLP kernel of Prefix-Tuning+ with gelu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class Projection(FeatureMapSpec):
    """One hidden layer; with a matrix memory the module is a two-layer MLP (remark 1 of Prefix-Tuning+).

    Positive with activation relu (T2R), signed with the others.
    """

    cites: ClassVar[str] = "T2R, arXiv:2103.13076; MLP kernel of arXiv:2506.13674"
    equation: ClassVar[str] = "f(x W + b)"
    learned: ClassVar[bool] = True
    kind: Literal["projection"] = "projection"
    width: Annotated[int, Field(ge=1), Domain(1, 256, log=True)] = 64
    activation: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    bias: bool = True

    def out_width(self, width: int) -> int:
        return self.width

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedProjection(self, width, groups)

    def is_positive(self) -> bool:
        return self.activation == "relu"

    def written(self, argument: str) -> str:
        """f(x W + c)"""
        return f"{self.activation}({argument} W{' + c' if self.bias else ''})"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, width) with W (d, width) and b (width)."""
        columns = [(x * params["weight"][:, j]).sum(-1) for j in range(self.width)]
        y = torch.stack(columns, -1)
        if self.bias:
            y = y + params["bias"]
        return ACTIVATIONS[self.activation](y)


class GroupedProjection(nn.Module):
    """W (G, d, width), b (G, width); W starts at N(0, 1/d), b at 0."""

    def __init__(self, spec: Projection, width: int, groups: int) -> None:
        super().__init__()
        self.activation = spec.activation
        self.weight = nn.Parameter(torch.randn(groups, width, spec.width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(groups, spec.width)) if spec.bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = grouped(x, self.weight)
        if self.bias is not None:
            y = y + self.bias[:, None]
        return ACTIVATIONS[self.activation](y)

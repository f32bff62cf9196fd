"""phi(x) = sin(ω ⊙ x)"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class Sine(FeatureMapSpec):
    """SIREN's activation, its frequencies trained: periodic, and bounded however far the query goes."""

    cites: ClassVar[str] = "SIREN, arXiv:2006.09661, section 3"
    equation: ClassVar[str] = "sin(ω ⊙ x)"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    bounded: ClassVar[bool] = True
    learned: ClassVar[bool] = True
    kind: Literal["sine"] = "sine"
    frequency: Annotated[float, Field(gt=0), Domain(0.1, 30.0, log=True)] = 1.0

    def out_width(self, width: int) -> int:
        return width

    def written(self, argument: str) -> str:
        return f"sin(ω ⊙ {argument})"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, d) with ω (d)."""
        omega = params["frequency"]
        return torch.stack([torch.sin(omega[j] * x[:, j]) for j in range(x.shape[1])], dim=1)

    def build(self, width: int, groups: int) -> nn.Module:
        return SineMap(self.frequency, width, groups)


class SineMap(nn.Module):
    """ω (G, d), every entry starting at `frequency`."""

    def __init__(self, frequency: float, width: int, groups: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.full((groups, width), float(frequency)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * self.frequency[:, None])

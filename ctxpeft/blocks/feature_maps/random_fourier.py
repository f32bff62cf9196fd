"""phi(x) = √(2/m) cos(x W + b), W and b random and fixed."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class RandomFourier(FeatureMapSpec):
    """φ(q)ᵀφ(k) is an unbiased estimate of the Gaussian kernel exp(−‖q − k‖² / (2 σ² d)), σ the `bandwidth`.

    m = `width` features with W at N(0, 1/(σ² d)) and b uniform in [0, 2π), drawn once, saved, never trained. The
    bandwidth is in units of √d, so that σ = 1 suits a query of unit coordinates at any width.
    """

    cites: ClassVar[str] = "Random features for large-scale kernel machines, Rahimi and Recht, NeurIPS 2007"
    equation: ClassVar[str] = "√(2/m) cos(x W + b), W ~ N(0, 1/(σ² d))"
    sign: ClassVar[Literal["positive", "signed"]] = "signed"
    bounded: ClassVar[bool] = True
    random: ClassVar[bool] = True
    kind: Literal["random_fourier"] = "random_fourier"
    width: Annotated[int, Field(ge=1), Domain(8, 512, log=True)] = 64
    bandwidth: Annotated[float, Field(gt=0), Domain(0.1, 10.0, log=True)] = 1.0

    def out_width(self, width: int) -> int:
        return self.width

    def build(self, width: int, groups: int) -> nn.Module:
        return RandomWaves(self, width, groups)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, m) with W (m, d) and b (m)."""
        waves = zip(params["frequency"], params["phase"], strict=True)
        return torch.stack([(2 / self.width) ** 0.5 * torch.cos(x @ w + b) for w, b in waves], -1)


class RandomWaves(nn.Module):
    """W (G, m, d) and b (G, m), saved buffers."""

    frequency: Tensor
    phase: Tensor

    def __init__(self, spec: RandomFourier, width: int, groups: int) -> None:
        super().__init__()
        scale = spec.bandwidth * width**0.5
        self.register_buffer("frequency", torch.randn(groups, spec.width, width) / scale)
        self.register_buffer("phase", 2 * math.pi * torch.rand(groups, spec.width))

    def forward(self, x: Tensor) -> Tensor:
        angle = grouped(x, self.frequency.transpose(1, 2)) + self.phase[:, None]
        return math.sqrt(2 / self.phase.shape[-1]) * torch.cos(angle)

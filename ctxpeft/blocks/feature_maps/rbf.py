"""phi(x)_k = softmax_k(-‖x - c_k‖² / (t √d))"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec


class Rbf(FeatureMapSpec):
    """A soft assignment of the query to `width` learned centroids: a matrix memory becomes one value a centroid.

    The temperature t is in units of √d, as softmax attention has them. Sums to 1. Centroids start at N(0, 1), so the
    query is best given a norm of its own (query: {norm: rms}).
    """

    cites: ClassVar[str] = "normalised radial basis functions, Moody and Darken 1989"
    equation: ClassVar[str] = "softmaxₖ(−‖x − cₖ‖² / (t √d))"
    sign: ClassVar[Literal["positive", "signed"]] = "positive"
    bounded: ClassVar[bool] = True
    learned: ClassVar[bool] = True
    kind: Literal["rbf"] = "rbf"
    width: Annotated[int, Field(ge=1), Domain(1, 256, log=True)] = 32
    temperature: Annotated[float, Field(gt=0), Domain(0.1, 10.0, log=True)] = 1.0

    def out_width(self, width: int) -> int:
        return self.width

    def build(self, width: int, groups: int) -> nn.Module:
        return GroupedRbf(self, width, groups)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, width) with c (width, d)."""
        scale = self.temperature * x.shape[-1] ** 0.5
        weight = torch.stack([torch.exp(-((x - c) ** 2).sum(-1) / scale) for c in params["centroid"]], -1)
        return weight / weight.sum(-1, keepdim=True)


class GroupedRbf(nn.Module):
    """c (G, width, d). ‖x‖² is the same for all centroids and cancels, so it is never computed."""

    def __init__(self, spec: Rbf, width: int, groups: int) -> None:
        super().__init__()
        self.scale = spec.temperature * width**0.5
        self.centroid = nn.Parameter(torch.randn(groups, spec.width, width))

    def forward(self, x: Tensor) -> Tensor:
        product = grouped(x, self.centroid.transpose(1, 2))
        score = 2 * product - self.centroid.square().sum(-1)[:, None]
        return torch.softmax(score / self.scale, -1)

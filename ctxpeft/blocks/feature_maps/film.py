"""phi(x) = γ ⊙ base(x), γ learned and 1 at the start."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from ctxpeft.spec.blocks import FeatureMapSpec
from ctxpeft.spec.registry import Kinds


class Film(FeatureMapSpec):
    """A learned code γ of one number a feature, multiplied with another map; at the start it is that map.

    Signed whatever the base, because a code may become negative; over a positive base the kernel Σ γᵢ² φᵢ(q) φᵢ(k) is
    positive. `base` is any map that is not made of another one;
    its own parameters, if it has any, are learned too. A base without parameters is shared by all codes of a layer.
    """

    model_config = ConfigDict(defer_build=True)

    cites: ClassVar[str] = "FiLM, arXiv:1709.07871"
    equation: ClassVar[str] = "γ ⊙ base(x)"
    learned: ClassVar[bool] = True
    kind: Literal["film"] = "film"
    base: Annotated[FeatureMapSpec, Kinds("feature_map", flat=True)] = Field(
        default_factory=lambda: {"kind": "elu"}  # type: ignore[assignment]
    )

    def out_width(self, width: int) -> int:
        return self.base.out_width(width)

    def has_positive_kernel(self) -> bool:
        return self.base.is_positive()

    def build(self, width: int, groups: int) -> nn.Module:
        shared = groups if self.base.has_parameters() else 1
        return GroupedFilm(self.base.build(width, shared), groups, self.out_width(width))

    def written(self, argument: str) -> str:
        """(γ ⊙ base(x))"""
        return f"(γ ⊙ {self.base.written(argument)})"

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, d) -> (N, w) with γ (w) and the tensors of the base under `base.`."""
        inner = {key.removeprefix("base."): t for key, t in params.items() if key.startswith("base.")}
        return self.base.naive(x, inner) * params["code"]


class GroupedFilm(nn.Module):
    """γ (G, w) and the module of the base."""

    def __init__(self, base: nn.Module, groups: int, out: int) -> None:
        super().__init__()
        self.base = base
        self.code = nn.Parameter(torch.ones(groups, out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) * self.code[:, None]
        return y

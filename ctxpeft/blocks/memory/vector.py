"""A constant vector: a bias outside, one slot of learned log-mass inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.memory.base import MemoryModule, Phi
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Init, Looked, Mass, MemorySpec, Normalizer, Per, SiteShape


class Vector(MemorySpec):
    """r(q) = b. Inside, its mass is e^zeta with a learned zeta that starts at `log_mass`."""

    cites: ClassVar[str] = "BitFit, arXiv:2106.10199; steering vectors, arXiv:2311.06668"
    equation: ClassVar[str] = "r = b; inside n = e^ζ b, m = e^ζ"
    kind: Literal["vector"] = "vector"
    per: Per = "query_head"
    init: Init = Field(default_factory=lambda: {"kind": "zeros"})  # type: ignore[assignment]
    log_mass: Annotated[float, Domain(-8.0, 4.0)] = 0.0

    def feature_map_use(self) -> Literal["required", "forbidden"]:
        return "forbidden"

    def mass(self) -> Mass:
        return "always"

    def normalizers(self) -> tuple[Normalizer, ...]:
        return ("none",)

    def zero_read_at_init(self) -> bool:
        return self.init.is_zero()

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def written(self, query: str, phi: Callable[[str], str]) -> tuple[str, str]:
        return "b", "e^ζ"

    def written_normalised(self, query: str) -> str:
        return "b"

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        return VectorMemory(self, shape, needs_mass)


class VectorMemory(MemoryModule):
    """b (G, dv) and, inside, zeta (G)."""

    def __init__(self, spec: Vector, shape: SiteShape, needs_mass: bool) -> None:
        super().__init__()
        groups = shape.groups(spec.per)
        self.vector = nn.Parameter(torch.empty(groups, shape.value_width))
        spec.init.fill_(self.vector.data)
        self.log_mass = nn.Parameter(torch.full((groups,), spec.log_mass)) if needs_mass else None

    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        batch, groups, count, _ = x.shape
        n = self.vector[None, :, None].expand(batch, groups, count, -1)
        if self.log_mass is None:
            return Read(n)
        c = self.log_mass[None, :, None].expand(batch, groups, count)
        return Read(n, torch.ones_like(c), c)

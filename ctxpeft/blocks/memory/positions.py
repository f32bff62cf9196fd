"""A low-rank table indexed by position: an offset that knows where a token stands and not what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.memory.base import MemoryModule, Phi
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Init, Looked, Per, PlainMemorySpec, SiteShape


class Positions(PlainMemorySpec):
    """r_t = A[t] B for t < length, and 0 beyond: A (length, rank) at N(0, 1/rank), B (rank, dv) at `init`.

    Positions count from 0 at the first token that is not padding. The same offset for all heads of a layer.
    """

    cites: ClassVar[str] = "DePT, arXiv:2309.05173"
    equation: ClassVar[str] = "r_t = A[t] B"
    kind: Literal["positions"] = "positions"
    length: Annotated[int, Field(ge=1), Domain(16, 2048, log=True)] = 256
    rank: Annotated[int, Field(ge=1), Domain(1, 64, log=True)] = 8
    init: Init = Field(default_factory=lambda: {"kind": "zeros"})  # type: ignore[assignment]

    def zero_read_at_init(self) -> bool:
        return self.init.is_zero()

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def written(self, query: str, phi: Callable[[str], str]) -> tuple[str, str]:
        return "A[t] B", ""

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        return PositionTable(self, shape)

    def naive(self, positions: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(T,) positions -> (T, dv)."""
        zero = torch.zeros_like(params["right"][0])
        return torch.stack(
            [params["left"][t] @ params["right"] if t < self.length else zero for t in positions.tolist()]
        )


class PositionTable(MemoryModule):
    """A (length, rank), B (rank, dv)."""

    def __init__(self, spec: Positions, shape: SiteShape) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(spec.length, spec.rank) * spec.rank**-0.5)
        self.right = nn.Parameter(torch.empty(spec.rank, shape.value_width))
        spec.init.fill_(self.right.data)

    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        assert capture.positions is not None
        at = capture.positions().to(x.device)
        rows = self.left[at.clamp(0, len(self.left) - 1)] * (at < len(self.left))[..., None]
        offset = rows @ self.right
        batch, groups, count, _ = x.shape
        heads = count // offset.shape[1]
        return Read(offset[:, None].repeat(1, 1, heads, 1).expand(batch, groups, -1, -1))

"""A low-rank edit of what is asked: the intervention of representation fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.memory.base import MemoryModule, Phi
from ctxpeft.blocks.products import grouped
from ctxpeft.errors import HostError
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Looked, Per, PlainMemorySpec, SiteShape


class Edit(PlainMemorySpec):
    """r(q') = R^T (W q' + b - R q') with R (rank, w) of orthonormal rows, W (rank, w) and b (rank).

    W is kept as its difference to R and starts at it, b at 0: the read starts at zero. R is the orthonormal factor of
    a free matrix. Asked with `output` at site `residual` this is LoReFT.
    """

    cites: ClassVar[str] = "LoReFT, arXiv:2404.03592"
    equation: ClassVar[str] = "r = Rᵀ (W q + b − R q), R Rᵀ = 1"
    learning_rate: ClassVar[float] = 3e-2
    kind: Literal["edit"] = "edit"
    rank: Annotated[int, Field(ge=1), Domain(1, 32, log=True)] = 4
    per: Per = "layer"

    def zero_read_at_init(self) -> bool:
        return True

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def written(self, query: str, phi: Callable[[str], str]) -> tuple[str, str]:
        return f"Rᵀ(W {query} + b − R {query})", ""

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        return EditMemory(self, shape)

    def naive(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """(N, w) -> (N, w), R by the Gram-Schmidt process on the rows of the free matrix."""
        rows: list[Tensor] = []
        for row in params["free"]:
            for done in rows:
                row = row - (row @ done) * done
            rows.append(row / row.norm())
        R = torch.stack(rows)
        W = R + params["difference"]
        return torch.stack([R.T @ (W @ q + params["bias"] - R @ q) for q in x])


class EditMemory(MemoryModule):
    """free and difference (G, rank, w), bias (G, rank). Raises HostError where rank or widths do not fit."""

    def __init__(self, spec: Edit, shape: SiteShape) -> None:
        super().__init__()
        width = shape.source_width
        if width != shape.value_width:
            raise HostError(
                f"memory 'edit' edits what it asks: {width} wide and {shape.value_width} do not fit"
            )
        if spec.rank > width:
            raise HostError(f"memory.rank {spec.rank} is more than the width {width} of what is edited")
        groups = shape.groups(spec.per)
        self.free = nn.Parameter(torch.randn(groups, spec.rank, width))
        self.difference = nn.Parameter(torch.zeros(groups, spec.rank, width))
        self.bias = nn.Parameter(torch.zeros(groups, spec.rank))

    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        q, r = torch.linalg.qr(self.free.transpose(1, 2))
        sign = torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None]
        rows = (q * sign).transpose(1, 2)
        inner = grouped(x, self.difference.transpose(1, 2)) + self.bias[:, None]
        return Read(grouped(inner, rows))

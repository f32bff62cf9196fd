"""Slot keys and values of low rank: many slots that share few directions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import Looked, ParameterizationSpec, SlotShape


class LowRank(ParameterizationSpec):
    """K = A B with A (P, r), B (r, d), and V likewise. A starts at N(0, 1/r); `init` sets B."""

    cites: ClassVar[str] = "LoPA, arXiv:2405.15282"
    equation: ClassVar[str] = "K = A_K B_K, V = A_V B_V"
    looks_at: ClassVar[tuple[Looked, ...]] = ()
    kind: Literal["low_rank"] = "low_rank"
    rank: Annotated[int, Field(ge=1), Domain(1, 32, log=True)] = 4

    def build(self, wanted: SlotShape) -> nn.Module:
        return LowRankSlots(self, wanted)

    def naive(self, params: dict[str, Tensor], group: int) -> tuple[Tensor, Tensor]:
        """K (P, d) and V (P, dv) of one group."""
        pairs = [(params[f"{part}_left"][group], params[f"{part}_right"][group]) for part in ("key", "value")]
        key, value = (
            torch.stack([(left[j][:, None] * right).sum(0) for j in range(len(left))])
            for left, right in pairs
        )
        return key, value


class LowRankSlots(nn.Module):
    """A (G, P, r) and B (G, r, d | dv), for keys and for values."""

    alone = made = True

    def __init__(self, spec: LowRank, wanted: SlotShape) -> None:
        super().__init__()
        scale, groups, site = spec.rank**-0.5, wanted.groups, wanted.site
        self.numbers = wanted.numbers()
        self.key_left = nn.Parameter(torch.randn(groups, wanted.count, spec.rank) * scale)
        self.key_right = nn.Parameter(torch.empty(groups, spec.rank, site.source_width))
        self.value_left = nn.Parameter(torch.randn(groups, wanted.count, spec.rank) * scale)
        self.value_right = nn.Parameter(torch.empty(groups, spec.rank, site.value_width))
        wanted.key_init.fill_(self.key_right.data)
        wanted.value_init.fill_(self.value_right.data)

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        return self.key_left @ self.key_right, self.value_left @ self.value_right

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over: K and V alone."""
        return self.numbers

"""Slot keys and values from one embedding: the shared structure that makes prefixes easier to estimate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import Looked, ParameterizationSpec, SlotShape


class SharedKV(ParameterizationSpec):
    """k_j = W_K tanh(e_j), v_j = W_V tanh(e_j): key and value of a slot come from the same embedding e_j.

    `init` sets the embeddings; W_K and W_V start at N(0, 1/embedding). A zero value init zeroes W_V.
    """

    cites: ClassVar[str] = "Revisiting Prefix-Tuning, arXiv:2410.02200"
    equation: ClassVar[str] = "kⱼ = W_K tanh(eⱼ), vⱼ = W_V tanh(eⱼ)"
    looks_at: ClassVar[tuple[Looked, ...]] = ()
    kind: Literal["shared_kv"] = "shared_kv"
    embedding: Annotated[int, Field(ge=1), Domain(4, 512, log=True)] = 64

    def build(self, wanted: SlotShape) -> nn.Module:
        return SharedSlots(self, wanted)

    def naive(self, params: dict[str, Tensor], group: int) -> tuple[Tensor, Tensor]:
        """K (P, d) and V (P, dv) of one group."""
        e = torch.tanh(params["embedding"])
        return e @ params["key_weight"][group], e @ params["value_weight"][group]


class SharedSlots(nn.Module):
    """e (P, embedding), W_K (G, embedding, d), W_V (G, embedding, dv)."""

    alone = made = True

    def __init__(self, spec: SharedKV, wanted: SlotShape) -> None:
        super().__init__()
        self.numbers = wanted.numbers()
        self.embedding = nn.Parameter(torch.empty(wanted.count, spec.embedding))
        wanted.key_init.fill_(self.embedding.data)
        scale, groups, site = spec.embedding**-0.5, wanted.groups, wanted.site
        self.key_weight = nn.Parameter(torch.randn(groups, spec.embedding, site.source_width) * scale)
        self.value_weight = nn.Parameter(torch.randn(groups, spec.embedding, site.value_width) * scale)
        if wanted.value_init.is_zero():
            self.value_weight.data.zero_()

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        e = torch.tanh(self.embedding)
        return e @ self.key_weight, e @ self.value_weight

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over: K and V alone."""
        return self.numbers

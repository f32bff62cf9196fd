"""Slot keys and values through an MLP of an embedding (Prefix-Tuning's reparameterisation)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import Looked, ParameterizationSpec, SlotShape


class Mlp(ParameterizationSpec):
    """[K, V] = tanh(E W1 + b1) W2 + b2, one MLP a layer.

    The paper's MLP is one for all layers; ours is one a layer, so that parameters live with the layer they serve.
    `init` sets E; W1 and W2 start at N(0, 1/fan_in). A zero value init zeroes the value half of W2.
    """

    cites: ClassVar[str] = "Prefix-Tuning, arXiv:2101.00190, section 4.3"
    equation: ClassVar[str] = "[K, V] = tanh(E W1 + b1) W2 + b2"
    learning_rate: ClassVar[float | None] = 3e-3
    looks_at: ClassVar[tuple[Looked, ...]] = ()
    kind: Literal["mlp"] = "mlp"
    embedding: Annotated[int, Field(ge=1), Domain(8, 512, log=True)] = 64
    hidden: Annotated[int, Field(ge=1), Domain(8, 512, log=True)] = 128

    def build(self, wanted: SlotShape) -> nn.Module:
        return MlpSlots(self, wanted)


class MlpSlots(nn.Module):
    """E (P, embedding) -> K (G, P, d), V (G, P, dv)."""

    alone = made = True

    def __init__(self, spec: Mlp, wanted: SlotShape) -> None:
        super().__init__()
        self.groups, self.numbers = wanted.groups, wanted.numbers()
        self.key_width, self.value_width = wanted.site.source_width, wanted.site.value_width
        width = self.groups * (self.key_width + self.value_width)
        self.embedding = nn.Parameter(torch.empty(wanted.count, spec.embedding))
        wanted.key_init.fill_(self.embedding.data)
        self.weight_1 = nn.Parameter(torch.randn(spec.embedding, spec.hidden) * spec.embedding**-0.5)
        self.bias_1 = nn.Parameter(torch.zeros(spec.hidden))
        self.weight_2 = nn.Parameter(torch.randn(spec.hidden, width) * spec.hidden**-0.5)
        self.bias_2 = nn.Parameter(torch.zeros(width))
        if wanted.value_init.is_zero():
            self.weight_2.data[:, self.groups * self.key_width :] = 0

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.embedding @ self.weight_1 + self.bias_1)
        both = hidden @ self.weight_2 + self.bias_2
        split = self.groups * self.key_width
        count = len(both)
        key = both[:, :split].reshape(count, self.groups, self.key_width).transpose(0, 1)
        value = both[:, split:].reshape(count, self.groups, self.value_width).transpose(0, 1)
        return key, value

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over: K and V alone."""
        return self.numbers

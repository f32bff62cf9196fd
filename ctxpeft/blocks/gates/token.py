"""A gate that looks at the token."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.gates.activation import (
    ACTIVATIONS,
    ONE_AT,
    POSITIVE,
    ZERO_AT_ZERO,
    Activation,
    written_activation,
)
from ctxpeft.blocks.products import grouped
from ctxpeft.errors import HostError
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import GateSpec, Looked, SiteShape


class Token(GateSpec):
    """g = f(w^T u + b) with u the module's query q', the hidden state x, the content output o, or the log-mass L.

    w starts at zero and b at `init`, so that every token starts with the same gate. Causal: each token reads only
    its own row (a gate pooled over the sequence would not be).
    """

    cites: ClassVar[str] = "UniPELT, arXiv:2110.07577; gated attention, arXiv:2505.06708"
    equation: ClassVar[str] = "g = f(wᵀu + b)"
    kind: Literal["token"] = "token"
    source: Literal["query", "hidden", "output", "log_mass"] = "query"
    activation: Activation = "sigmoid"
    init: Annotated[float, Domain(-4.0, 4.0)] = 0.0

    def is_zero_at_init(self) -> bool:
        return self.init == 0 and self.activation in ZERO_AT_ZERO

    def is_one_at_init(self) -> bool:
        return self.init == ONE_AT.get(self.activation)

    def is_positive(self) -> bool:
        return self.activation in POSITIVE

    def looks_at(self) -> tuple[Looked, ...]:
        return () if self.source == "query" else (self.source,)

    def written(self, query: str, output: str) -> tuple[str, str]:
        looked_at = {"query": query, "hidden": "x", "output": output, "log_mass": "L"}[self.source]
        return "g", written_activation(self.activation, f"wᵀ{looked_at} + c")

    def build(self, shape: SiteShape) -> nn.Module:
        return TokenGate(self, shape)


class TokenGate(nn.Module):
    """w (H, width), b (H, 1); g (B, H, T, 1)."""

    heads: Tensor | None

    def __init__(self, spec: Token, shape: SiteShape) -> None:
        super().__init__()
        self.source, self.activation = spec.source, spec.activation
        count = len(shape.heads)
        width = {
            "query": shape.source_width,
            "hidden": shape.hidden_width,
            "output": shape.value_width,
            "log_mass": 1,
        }[spec.source]
        every = shape.heads == tuple(range(shape.query_heads))
        self.register_buffer(
            "heads", None if every else torch.tensor(shape.heads, device=shape.device), persistent=False
        )
        self.weight = nn.Parameter(torch.zeros(count, width))
        self.bias = nn.Parameter(torch.full((count, 1), spec.init))

    def forward(self, capture: Capture, query: Tensor) -> Tensor | None:
        u = self._look(capture, query).to(self.weight.dtype)
        if u.shape[1] == 1:  # one state for all heads
            logit = functional.linear(u[:, 0], self.weight, self.bias[:, 0]).transpose(1, 2)
        else:
            logit = grouped(u, self.weight[..., None])[..., 0] + self.bias
        return ACTIVATIONS[self.activation](logit)[..., None]

    def _look(self, capture: Capture, query: Tensor) -> Tensor:
        if self.source == "query":
            return query
        if self.source == "log_mass":
            if capture.log_mass is None:
                raise HostError("this site has no softmax, so a gate cannot read its log-mass")
            mass = capture.log_mass()[..., None]
            mass = mass.masked_fill(
                torch.isneginf(mass), 0.0
            )  # a padded query sees nothing, and 0 * -inf is NaN
            return mass if self.heads is None else mass.index_select(1, self.heads)
        return capture.source(self.source, self.heads)

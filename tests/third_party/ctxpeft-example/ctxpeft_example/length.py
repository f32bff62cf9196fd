"""g = nᵃ, n the number of keys that a token sees"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.errors import HostError
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import GateSpec, SiteShape


class Length(GateSpec):
    """A memory that grows or fades with the length of the context, a trained exponent a head; 0 is no gate.

    On the mass it learns how far the context dilutes the memory: 0 is the merge `compete`, 1 is `compete_length`.
    """

    equation: ClassVar[str] = "g = nᵃ"
    kind: Literal["length"] = "length"
    init: Annotated[float, Domain(-1.0, 1.0)] = 0.0

    def is_positive(self) -> bool:
        return True

    def written(self, query: str, output: str) -> tuple[str, str]:
        return "g", "nᵃ"

    def build(self, shape: SiteShape) -> nn.Module:
        return LengthGate(self.init, shape)


class LengthGate(nn.Module):
    """a (H, 1); g (B, H, T, 1)."""

    def __init__(self, init: float, shape: SiteShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.exponent = nn.Parameter(torch.full((len(shape.heads), 1), float(init)))

    def forward(self, capture: Capture, query: Tensor) -> Tensor | None:
        if capture.key_count is None:
            raise HostError("the gate 'length' counts visible keys, which exist at site 'head'")
        count = capture.key_count()
        if count.shape[1] > 1:
            count = count[:, list(self.heads)]
        log_count = torch.log(count.to(self.exponent.dtype).clamp_min(1))  # a padded token sees nothing
        return torch.exp(self.exponent * log_count)[..., None]

"""q' = scale(norm(source)) / temperature."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.capture import Capture, compute_dtype
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.query import QuerySpec

EPS = 1e-6
POWERS = {"none": 0.0, "inverse_sqrt": -0.5, "inverse_fourth_root": -0.25}


def naive_query(spec: QuerySpec, x: Tensor, temperature: Tensor | float) -> Tensor:
    """The equation on (..., d)."""
    if spec.norm == "rms":
        x = x / ((x * x).mean(-1, keepdim=True) + EPS).sqrt()
    if spec.norm == "l2":
        x = x / ((x * x).sum(-1, keepdim=True) + EPS).sqrt()
    factor: float = float(x.shape[-1]) ** POWERS[spec.scale]
    return x * factor / temperature


class Query(nn.Module):
    """Capture -> q', (B, H, T, width), in fp32 (fp64 on an fp64 host). plain: q' is the source, of all heads."""

    heads: Tensor | None

    def __init__(self, spec: QuerySpec, shape: SiteShape) -> None:
        super().__init__()
        self.spec = spec
        self.dtype = compute_dtype(shape.dtype)
        all_heads = shape.heads == tuple(range(shape.query_heads))
        self.register_buffer(
            "heads", None if all_heads else torch.tensor(shape.heads, device=shape.device), persistent=False
        )
        self.factor = float(shape.source_width) ** POWERS[spec.scale] / (
            1.0 if spec.learned_temperature else spec.temperature
        )
        self.plain = all_heads and spec.norm == "none" and self.factor == 1.0 and not spec.learned_temperature
        if spec.learned_temperature:
            heads = 1 if spec.source == "hidden" else len(shape.heads)
            start = torch.full((heads, 1, 1), spec.temperature, dtype=self.dtype, device=shape.device)
            self.log_temperature = nn.Parameter(start.log())

    def forward(self, capture: Capture) -> Tensor:
        assert self.spec.source is not None
        x = capture.source(self.spec.source, self.heads).to(self.dtype)
        return x if self.plain else self.of(x)

    def of(self, x: Tensor) -> Tensor:
        """q' of the source at the heads in scope, as a query is that is not `plain`."""
        if self.spec.norm == "rms":
            x = functional.rms_norm(x, x.shape[-1:], eps=EPS)
        elif self.spec.norm == "l2":
            x = x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)
        if self.factor != 1.0:
            x = x * self.factor
        if self.spec.learned_temperature:
            x = x * torch.exp(-self.log_temperature)
        return x

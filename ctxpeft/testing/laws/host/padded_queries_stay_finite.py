"""A left-padded query sees no key."""

from __future__ import annotations

import torch

from ctxpeft.testing.laws.ground import DoesNotApply, Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="L = -∞ ⇒ logits and ∂loss/∂θ finite",
    source="the design; 0 · -∞ is NaN",
    least=Size(2, 3, 1),
    most=Size(2, 9, 4),
)
def padded_queries_stay_finite(host: Host, size: Size) -> None:
    """A query that sees nothing turns neither an output nor a gradient into NaN, at init, under eager and sdpa."""
    batch = host.batch(*size[:2]).padded(size.padded, "left")
    for backend in ("sdpa", "eager"):
        try:
            with host.attention(backend), host.attached(moved=False) as handle:
                require(
                    bool(torch.isfinite(host.run(batch).logits).all()), f"{backend}: an output is not finite"
                )
                for key, gradient in host.gradients(handle, batch).items():
                    finite = gradient is None or bool(torch.isfinite(gradient).all())
                    require(finite, f"{backend}: the gradient of {key} is not finite")
        except DoesNotApply:
            continue

"""What `output_attentions` says."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.hosts.discover import discover
from ctxpeft.hosts.positions import content_shift
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.evidence import Bound
from ctxpeft.testing.laws.ground import DoesNotApply, Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


def _competes_first(variant: Variant) -> str | None:
    inside = any(m.placement == "inside" and _first_layer(m.scope.layers) for m in variant.modules)
    before = any(m.site == "embeddings" for m in variant.modules)
    scoped = any(m.scope.tokens != "all" for m in variant.modules)
    return (
        None
        if inside and not before and not scoped
        else "nothing competes with the content in the first layer"
    )


def _first_layer(layers: object) -> bool:
    return layers == "all"


@host_law(
    equation="weights = (1 - ρ) softmax(a qᵀK), 0 < ρ",
    source="the design",
    applies=_competes_first,
    least=Size(1, 1),
)
def weights_are_what_is_left(host: Host, size: Size) -> None:
    """Attention weights keep their proportions and lose what the memory takes (seen in the first layer)."""
    if content_shift(host.variant, discover(host.model)[0].turnable):
        raise DoesNotApply("the variant shifts the positions of the content, and with them its scores")
    batch = host.batch(*size[:2])
    with host.attention("eager"):
        base = _first(host, batch)
        with host.attached():
            left = _first(host, batch)
    kept = left.sum(-1, keepdim=True)
    host.evidence.tensors(left, kept * base, Bound(host.same_kernel.absolute), "weights")
    taken = float((1 - kept).abs().max())
    require(taken > 10 * torch.finfo(host.dtype).eps, "the memory takes no weight from the content")


def _first(host: Host, batch: object) -> Tensor:
    with torch.no_grad():
        weights: Tensor = host.forward(batch, output_attentions=True).attentions[0]  # type: ignore[arg-type]
    return weights.float()

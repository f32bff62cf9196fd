"""Attaching changes nothing until training does."""

from __future__ import annotations

from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


def _claimed(variant: Variant) -> str | None:
    return None if variant.identity_at_init() else "the variant does not claim identity at init"


@host_law(
    equation="θ = θ₀ ⇒ logits = base logits",
    source="LLaMA-Adapter, arXiv:2303.16199; LoRA, arXiv:2106.09685",
    applies=_claimed,
)
def identity_at_init(host: Host, size: Size) -> None:
    """A variant that claims identity at init leaves every output bit-identical when it is attached."""
    batch = host.batch(*size[:2])
    base = host.run(batch)
    with host.attached(moved=False):
        host.evidence.exact(host.run(batch), base)

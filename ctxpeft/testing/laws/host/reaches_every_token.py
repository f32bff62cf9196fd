"""An adapter that does nothing would satisfy most laws."""

from __future__ import annotations

from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


def _every_token(variant: Variant) -> str | None:
    scoped = any(m.scope.tokens != "all" for m in variant.modules)
    return "the variant is told to leave some tokens alone" if scoped else None


@host_law(
    equation="θ ≠ θ₀ ⇒ logits_t ≠ base logits_t for every t",
    source="the design",
    applies=_every_token,
    peft=True,
)
def reaches_every_token(host: Host, size: Size) -> None:
    """With its parameters moved from their init the variant changes the output at every position."""
    batch = host.batch(*size[:2])
    base = host.run(batch)
    with host.attached():
        moved = host.run(batch)
    change = (moved.logits - base.logits).abs().amax((0, 2))
    missed = (change == 0).nonzero().flatten().tolist()
    require(not missed, f"no effect at token {missed[0] if missed else ''}")

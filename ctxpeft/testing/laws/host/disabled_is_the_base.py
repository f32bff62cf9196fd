"""Switched off is off."""

from __future__ import annotations

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(equation="disabled ⇒ logits = base logits", source="the design", peft=True)
def disabled_is_the_base(host: Host, size: Size) -> None:
    """A disabled adapter leaves the base bit for bit, and switched on again it does what it did."""
    batch = host.batch(*size[:2])
    base = host.run(batch)
    with host.attached() as handle:
        before = host.run(batch)
        with handle.disabled():
            host.evidence.exact(host.run(batch), base, "disabled")
        host.evidence.exact(host.run(batch), before, "enabled again")

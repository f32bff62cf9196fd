"""When the order of activation does not matter."""

from __future__ import annotations

import ctxpeft
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size

COMMUTING = ("compete", "compete_length", "add")


def _commutes(variant: Variant) -> str | None:
    merges = sorted({str(m.merge) for m in variant.modules} - set(COMMUTING))
    return f"merge '{merges[0]}' acts in list order" if merges else None


@host_law(
    equation="activate(a, b) = activate(b, a) for inside and outside add",
    source="the design: everything is read before anything is merged",
    applies=_commutes,
)
def order_of_adapters(host: Host, size: Size) -> None:
    """Two adapters give the same in either order: inside they join one softmax, outside they add."""
    batch = host.batch(*size[:2])
    with host.attached("a", seed=0), host.attached("b", seed=1):
        one = host.run(batch)
        ctxpeft.activate(host.model, ["b", "a"])
        host.evidence.close(host.run(batch), one, host.same_kernel)

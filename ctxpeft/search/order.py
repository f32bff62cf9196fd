"""The order of a design's modules: where it changes nothing, one is taken, so that a design is trained once."""

from __future__ import annotations

from collections.abc import Sequence

from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.variant import Variant


def settled(modules: Sequence[ModuleSpec]) -> list[int]:
    """The places of the modules in the order that all lists with the same effect share.

    Of the modules that may come first, because they go past all before them, the one whose fingerprint is smallest
    does, and so on: the least of the lists that exchanges of neighbours lead to.
    """
    keys = [Variant(name="one", modules=[module]).fingerprint() for module in modules]
    left, found = list(range(len(modules))), []
    while left:
        free = [i for n, i in enumerate(left) if all(exchangeable(modules[i], modules[j]) for j in left[:n])]
        found.append(min(free, key=lambda i: keys[i]))
        left.remove(found[-1])
    return found


def exchangeable(one: ModuleSpec, other: ModuleSpec) -> bool:
    """Whether the order of two modules changes nothing but the rounding of a sum.

    All modules of a site read the host before any is merged, and what competes is merged before what is outside
    (`ctxpeft.blocks.compose`). So the order counts among outside modules of one site alone, and not where both add. Of
    two inside modules nothing is claimed: virtual tokens stand in their order.
    """
    if one.placement != other.placement:
        return True
    if one.placement == "inside":
        return False
    return one.site != other.site or one.merge == other.merge == "add"

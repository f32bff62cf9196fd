"""Which modules of a layer have to be watched for the modules that act there: none is watched for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.discover import needs_projections
from ctxpeft.spec.blocks import InitSpec

Need = Literal["states", "unrotated", "ffn", "layer"]


def needs(modules: Iterable[ContextModule], replays: bool, served: bool) -> set[Need]:
    """states: what the attention is given, and the plan before it attends. unrotated: the query before RoPE. ffn: what
    it takes and gives. layer: what it takes, and gives at the site `residual`.

    replays: keys and values of states are had from the attention's own call. served: it calls the interface.
    """
    found: set[Need] = set()
    for module in modules:
        spec = module.spec
        if spec.query.source == "unrotated":
            found.add("unrotated")
        if spec.site == "ffn":
            found |= {"ffn", "layer", "states"}
        elif spec.site == "residual":
            found |= {"layer", "states"}
        elif spec.site != "head" or not served or "hidden" in module.looks_at or not spec.projected:
            found |= {"layer", "states"} if spec.site != "head" else {"states"}
        init = getattr(spec.memory, "init", None)
        if (isinstance(init, InitSpec) and init.compiles) or (replays and needs_projections(spec)):
            found.add("states")
    return found

"""The short way through the heads: modules that need no capture, in few operations.

Matrices are added. Where nothing is trained, slots beside one query a row (a decoded token) join the content's
attention by their mass. It says what `compose` says; what it does not cover goes the general way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ctxpeft.blocks.attention import one_query
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.fused import additive_and_blind, plain


class Short(NamedTuple):
    """The modules of a site where all go the short way: at most one of slots, and the matrices, in order."""

    slots: ContextModule | None
    matrices: tuple[ContextModule, ...]

    @classmethod
    def of(cls, modules: list[ContextModule]) -> Short | None:
        """None where one of them needs the general way, or there are none."""
        alone = [module for module in modules if module.alone]
        matrices = tuple(module for module in modules if module.short)
        if not modules or len(alone) > 1 or len(alone) + len(matrices) < len(modules):
            return None
        return cls(alone[0] if alone else None, matrices)


def beside_slots(
    module: ContextModule,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
) -> Tensor | None:
    """(B, 1, Hq, dv) of one softmax over the content and the slots of a module that is `alone`, in a call of the
    attention interface under sdpa; None for several queries a row, and where no kernel serves."""
    if query.shape[2] != 1 or not plain(mask, options):
        return None
    added = blind = None
    if mask is not None:
        added, blind = additive_and_blind(mask, query.dtype, key.shape[2])
    told = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if told is None else told
    memory: Any = module._modules["memory"]
    return one_query(query, key, value, added, blind, memory.own_pairs(), scaling)

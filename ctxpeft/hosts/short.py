"""The short way through the heads: modules that need no capture, in few operations.

Matrices are added. Where nothing is trained, so are the reads of slots outside, and slots beside one query a row (a
decoded token) join the content's attention by their mass. It says what `compose` says; what it does not cover goes the
general way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ctxpeft.blocks.attention import one_query
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.fused import additive_and_blind, plain


class Short(NamedTuple):
    """The modules of a site where all go the short way: at most one of slots that compete, and those that add, matrices
    and slots, in order.

    parts: the modules that those consist of, themselves among them. trains: all are one product a head.
    """

    slots: ContextModule | None
    adding: tuple[ContextModule, ...]
    parts: tuple[nn.Module, ...] = ()
    trains: bool = False

    @classmethod
    def of(cls, modules: list[ContextModule]) -> Short | None:
        """None where one of them needs the general way, or there are none."""
        alone = [module for module in modules if module.alone]
        adding = tuple(module for module in modules if module.short or module.aside)
        if not modules or len(alone) > 1 or len(alone) + len(adding) < len(modules):
            return None
        parts = tuple(
            part for m in adding for part in (m, m._modules["memory"], m._modules.get("feature_map")) if part
        )
        trains = not alone and all(module.one_product for module in adding)
        return cls(alone[0] if alone else None, adding, parts, trains)

    def is_bare(self) -> bool:
        """Whether calling a module that adds is nothing but its `forward` of its own parameters: no hooks on it or its
        parts, not accelerate's, and none of torch's parametrizations."""
        for part in self.parts:
            there = part.__dict__
            if there["_forward_hooks"] or there["_forward_pre_hooks"] or "_hf_hook" in there:
                return False
            if "parametrizations" in there["_modules"]:
                return False
        return True


def beside_slots(
    module: ContextModule,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
    pairs: Callable[[ContextModule, Tensor], tuple[Tensor, Tensor]],
) -> Tensor | None:
    """(B, 1, Hq, dv) of one softmax over the content and the slots of a module that is `alone`, in a call of the
    attention interface under sdpa; `pairs` gives K and V of its slots, and may look at the query's shape. None for
    several queries a row, and where no kernel serves."""
    if query.shape[2] != 1 or not plain(mask, options):
        return None
    added = blind = None
    if mask is not None:
        added, blind = additive_and_blind(mask, query.dtype, key.shape[2])
    told = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if told is None else told
    return one_query(query, key, value, added, blind, pairs(module, query), scaling)

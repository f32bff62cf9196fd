"""The short way through the heads: modules that do not look at the content's attention, in few operations.

Matrices are added, and what other modules answer; slots inside join the content's attention. Where nothing is trained
the reads of slots outside take fewer operations too, and slots beside one query a row (a decoded token) join by their
mass. It says what `compose` says; what it does not cover goes the general way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.blocks.attention import joint, one_query, serves
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.content import Content
from ctxpeft.hosts.fused import additive_and_blind, applicable, plain, question


class Short(NamedTuple):
    """The modules of a site where all go the short way: at most one of slots that compete, and those that add.

    adding: in order. parts: what is not called but asked for what it is made of, modules and all that they consist of.
    """

    slots: ContextModule | None
    adding: tuple[ContextModule, ...]
    parts: tuple[nn.Module, ...] = ()

    @classmethod
    def of(cls, modules: list[ContextModule]) -> Short | None:
        """None where one of them needs the general way, or there are none."""
        alone = [module for module in modules if module.alone]
        adding = tuple(module for module in modules if module.adds)
        if not modules or len(alone) > 1 or len(alone) + len(adding) < len(modules):
            return None
        parts = tuple(
            part
            for m in adding
            if m.short or m.aside
            for part in (m, m._modules["memory"], m._modules.get("feature_map"))
            if part
        )
        return cls(alone[0] if alone else None, adding, parts)

    def is_bare(self) -> bool:
        """Whether to call what is not called would be nothing but its `forward` of its own parameters: no hooks on a
        module or its parts, not accelerate's, and none of torch's parametrizations."""
        for part in self.parts:
            there = part.__dict__
            if there["_forward_hooks"] or there["_forward_pre_hooks"] or "_hf_hook" in there:
                return False
            if "parametrizations" in there["_modules"]:
                return False
        return True


def beside_slots(
    slots: ContextModule,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
    pairs: Callable[[ContextModule, Tensor], tuple[Tensor, Tensor]],
) -> Tensor | None:
    """(B, T, Hq, dv) of one softmax over the content and the slots of a module that is `alone`, in a call of the
    attention interface under sdpa; `pairs` gives K and V of its slots, and may look at the query's shape. None where no
    kernel serves, and of several queries a row under a compiler, which takes the general way."""
    if query.shape[2] == 1 and not torch.is_grad_enabled():
        return _beside_one(slots, query, key, value, mask, options, pairs)
    if torch.compiler.is_compiling() or not applicable(query, key, value, mask, options):
        return None
    found = pairs(slots, query)
    if not serves(query, found[0][None], found[1][None], dtype=found[0].dtype):
        return None
    content = Content(module, query, key, mask, options, "sdpa")
    return joint(question(content, value), found, ()).transpose(1, 2).contiguous()


def _beside_one(
    slots: ContextModule,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
    pairs: Callable[[ContextModule, Tensor], tuple[Tensor, Tensor]],
) -> Tensor | None:
    if not plain(mask, options):
        return None
    added = blind = None
    if mask is not None:
        added, blind = additive_and_blind(mask, query.dtype, key.shape[2])
    told = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if told is None else told
    return one_query(query, key, value, added, blind, pairs(slots, query), scaling)

"""The short way through the heads: modules that do not look at the content's attention, in few operations.

Matrices are added, and what other modules answer; slots inside join the content's attention. Where nothing is trained
the reads of slots outside take fewer operations too, and what competes for one query a row (a decoded token) joins by
its mass. It says what `compose` says; what it does not cover goes the general way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.blocks.attention import joint, serves
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.one_query import OneQuery, log_count
from ctxpeft.hosts.content import Content, scaling, seen
from ctxpeft.hosts.fused import additive_and_blind, applicable, plain, question


class Short(NamedTuple):
    """The modules of a site where all go the short way: at most one that competes, and those that add.

    adding: in order. parts: modules that are read without being called, and all that is read of them. calls: others
    are called, and see a capture.
    """

    competing: ContextModule | None
    adding: tuple[ContextModule, ...]
    parts: tuple[nn.Module, ...] = ()
    calls: bool = False

    @classmethod
    def of(cls, modules: list[ContextModule]) -> Short | None:
        """None where one of them needs the general way, or there are none."""
        competing = [module for module in modules if module.alone or module.weighed]
        adding = tuple(module for module in modules if module.adds)
        if not modules or len(competing) > 1 or len(competing) + len(adding) < len(modules):
            return None
        parts = tuple(part for module in modules for part in _asked(module))
        calls = not all(module.short or module.aside for module in adding)
        return cls(competing[0] if competing else None, adding, parts, calls)

    def is_bare(self, backward: bool = True) -> bool:
        """Whether nobody has a say in the parts that are read without being called: no hooks, not accelerate's, and
        none of torch's parametrizations. `backward`: hooks on a backward pass count too."""
        for part in self.parts:
            there = part.__dict__
            if (
                there["_forward_hooks"]
                or there["_forward_pre_hooks"]
                or "_hf_hook" in there
                or "parametrizations" in there["_modules"]
                or (backward and (there["_backward_hooks"] or there["_backward_pre_hooks"]))
            ):
                return False
        return True


def _asked(module: ContextModule) -> list[nn.Module]:
    """What is read of a module that is not called where it adds or is weighed. One that is `alone` is called by no way;
    its slots say by themselves whether somebody has a say."""
    if not (module.short or module.aside or module.weighed):
        return []
    found = (module._modules.get(name) for name in ("query", "memory", "feature_map"))
    return [module, *(part for part in found if part is not None)]


Pairs = Callable[[ContextModule, Tensor], tuple[Tensor, Tensor]]
"""K and V of the slots of a module; it may look at the query's shape."""


def beside(
    module: ContextModule,
    host: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
    pairs: Pairs,
) -> Tensor | None:
    """(B, T, Hq, dv) of one softmax over the content and what a module holds that is `alone` or `weighed`, in a call of
    the attention interface by a module of the host, under sdpa. None where no kernel serves; with several queries a
    row, or gradients, also where it is `weighed` or a compiler looks."""
    if query.shape[2] == 1 and not torch.is_grad_enabled():
        return _beside_one(module, query, key, value, mask, options, pairs)
    if module.weighed or torch.compiler.is_compiling():
        return None
    if not applicable(query, key, value, mask, options):
        return None
    slots = pairs(module, query)
    if not serves(query, slots[0][None], slots[1][None], dtype=slots[0].dtype):
        return None
    content = Content(host, query, key, mask, options, "sdpa")
    return joint(question(content, value), slots, ()).transpose(1, 2).contiguous()


def _beside_one(
    module: ContextModule,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
    pairs: Pairs,
) -> Tensor | None:
    if not plain(mask, options):
        return None
    added = blind = None
    if mask is not None:
        added, blind = additive_and_blind(mask, query.dtype, key.shape[2])
    asked = OneQuery.of(query, key, value, added, blind, scaling(query, options), module.dtype)
    if asked is None:
        return None
    if module.massed:
        return module.beside_mass(asked)
    more: Tensor | float | None = None
    if module.weighed:
        keys = key.shape[2]
        count = log_count(keys, None if mask is None else seen(mask, keys), module.dtype)
        more = module.length_bias.reshape(-1, *asked.groups()) + count
    of_rows = module.count != query.shape[1]
    return asked.beside_slots(pairs(module, query), of_rows, more)

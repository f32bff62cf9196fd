"""Parameter counts without allocating a parameter."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.shared import SharedBlocks
from ctxpeft.hosts.build import build, on_meta
from ctxpeft.hosts.discover import discover
from ctxpeft.spec.variant import Variant

Kind = Literal["trainable", "deployed"]


def count_parameters(model: nn.Module, variant: Variant, kind: Kind = "trainable") -> int:
    """Parameters a variant would add to a model, built on the meta device; the model is not touched.

    Raises HostError where the model cannot host the variant.
    """
    if variant.peft is not None:
        from ctxpeft.hosts.peft_tuner import count_injected

        return count_injected(model, variant)
    return sum(count_module(b.module, kind) for b in build(model, discover(model), variant, on_meta))


def count_module(module: ContextModule | SharedBlocks, kind: Kind) -> int:
    """Parameters of one built module, in training or once it is deployed."""
    return module.deployed_parameters() if kind == "deployed" else sum(p.numel() for p in module.parameters())

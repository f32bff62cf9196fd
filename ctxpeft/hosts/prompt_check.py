"""Whether virtual tokens are, on a host, what they claim to be: tokens before the input. Found out by values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.blocks.shared import SharedBlocks
from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.discover import embeddings
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.hosts.probe import few_tokens, without_adapters
from ctxpeft.hosts.prompts import READ_BEFORE
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant

NAME = "ctxpeft-probe"
COUNT = 2
MISSING = 0.2
"""The share of the effect of two tokens that may be missing."""
Place = Callable[[Variant], BaseHandle]


def check_prompts(model: nn.Module, place: Place) -> None:
    """Raises HostError where two tokens as virtual tokens do not do what they do before the input. Runs once a model.

    `place` attaches a variant under the name of the probe, which leaves again.
    """
    if model.__dict__.get(READ_BEFORE) or next(model.parameters()).device.type == "meta":
        return
    missing = missing_share(model, place)
    if not missing <= MISSING:
        raise HostError(
            "parameterization 'prompt' claims to be tokens before the input, and in this model "
            f"({type(model).__name__}) {missing:.0%} of what two such tokens do is missing: something besides "
            "attention passes between its tokens, or it counts positions by itself; use parameterization 'direct' or "
            "'mlp'"
        )
    model.__dict__[READ_BEFORE] = True


def missing_share(model: nn.Module, place: Place) -> float:
    """|virtual - before| / |without - before| over what the model says of two tokens, after two others.

    0 up to rounding where virtual tokens are tokens, 1 where they do nothing.
    """
    embedding = embeddings(model)[0]
    ids: Tensor = few_tokens(model, 2 * COUNT)["input_ids"]
    head, tail = ids[:, :COUNT], ids[:, COUNT:]
    with torch.random.fork_rng(devices=[]), without_adapters(model):
        without, before = _last(model, tail), _last(model, ids)
        handle: Any = place(_probe())
        try:
            owner: Any = next(b.module.prompt for b in handle.built if isinstance(b.module, SharedBlocks))
            controller_of(model).active = (NAME,)
            owner.embedding.data.copy_(embedding(head)[0])
            virtual = _last(model, tail)
        finally:
            handle.detach()
    effect = (without - before).norm().clamp_min(torch.finfo(before.dtype).tiny)
    return float((virtual - before).norm() / effect)


def _probe() -> Variant:
    memory = {"kind": "slots", "count": COUNT, "parameterization": {"kind": "prompt"}, "position": "auto"}
    return load_variant({"name": NAME, "modules": [{"placement": "inside", "memory": memory}]})


def _last(model: Any, ids: Tensor) -> Tensor:
    """What the model says at the last two tokens, in fp32."""
    found: Tensor = model(input_ids=ids, use_cache=False)[0]
    return found[:, -COUNT:].float()

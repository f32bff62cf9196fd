"""Put a variant into a model, in place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.blocks.shared import SharedBlocks, has_virtual_tokens
from ctxpeft.errors import HostError
from ctxpeft.hosts.build import build, on_meta, state_of
from ctxpeft.hosts.compile import compile_inits
from ctxpeft.hosts.controller import Controller, controller_of
from ctxpeft.hosts.discover import discover
from ctxpeft.hosts.freeze import freeze, remember
from ctxpeft.hosts.handle import BaseHandle, Handle
from ctxpeft.hosts.positions import content_shift
from ctxpeft.hosts.prompt_check import NAME as PROBE
from ctxpeft.hosts.prompt_check import check_prompts
from ctxpeft.hosts.root import Root
from ctxpeft.hosts.seam import Seam
from ctxpeft.hosts.vocabulary import fill_from_vocabulary
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant

Check = Callable[[dict[str, Tensor]], None]
ADAPTER_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*$")


def attach(
    model: nn.Module,
    variant: str | os.PathLike[str] | Mapping[str, Any] | Variant,
    name: str = "default",
    seed: int | None = None,
    tokenizer: Any = None,
) -> BaseHandle:
    """Attach a variant to a transformers model, in place; the model keeps its class and its base is frozen.

    The adapter becomes active beside those already attached (`ctxpeft.activate` chooses). With a seed, the
    initialisation does not depend on the global random state and leaves it alone. `tokenizer` is asked where a memory
    begins from a text; left out, the one that lies beside the model's weights.

    Raises SpecError for what is not a variant; HostError for a model that cannot host it, an adapter name that is
    taken or not made of letters, digits, `-` and `_`. On any error the model is left as it was.
    """
    handle = place(model, variant, name, seed)
    if isinstance(handle, Handle):
        try:
            compile_inits(model, controller_of(model), handle.variant, handle.built, tokenizer)
            fill_from_vocabulary(model, controller_of(model), handle.variant, handle.built, tokenizer, seed)
        except BaseException:
            handle.detach()
            raise
    return handle


def place(
    model: nn.Module,
    variant: str | os.PathLike[str] | Mapping[str, Any] | Variant,
    name: str,
    seed: int | None,
    check: Check | None = None,
) -> BaseHandle:
    """`attach` without what a text decides: for an adapter whose parameters are about to be read from a file.

    `check` is given the parameters and saved buffers to be, on the meta device, before memory is taken for them; what
    it raises leaves the model as it was.
    """
    variant = load_variant(variant)
    if not ADAPTER_NAME.match(name):
        raise HostError(f"'{name}' is not an adapter name: use letters, digits, '-' and '_'")
    existing = model.__dict__.get("_ctxpeft")
    if isinstance(existing, Controller) and name in existing.handles:
        raise HostError(f"an adapter called '{name}' is attached already; detach it or choose another name")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if variant.peft is not None:
            from ctxpeft.hosts.peft_tuner import inject

            return inject(model, variant, name, check)
        layers = discover(model)
        if check is not None:
            check(state_of(build(model, layers, variant, on_meta)))
        built = build(model, layers, variant)
    if any(has_virtual_tokens(spec) for spec in variant.modules) and name != PROBE:
        check_prompts(model, lambda probe: place(model, probe, PROBE, seed=None))
    remember(model)
    controller = controller_of(model, create=True)
    root = Root.of(model, controller)
    if shift := content_shift(variant, layers[0].turnable):
        root.shifts[name] = shift
    seams: dict[int, Seam] = {}
    for _, index, layer, module in built:
        module.train(model.training)
        if isinstance(module, SharedBlocks):
            root.serve_shared().add(name, str(index), module)
        elif layer is None:
            root.serve_embeddings().add(name, str(index), module)
        else:
            seam = seams.setdefault(layer, Seam.of(layers[layer], controller))
            seam.add(name, str(index), module)
    handle = Handle(model, variant, name, built, list(seams.values()), root, layers)
    freeze(model)
    controller.handles[name] = handle
    controller.active = (*controller.active, name)
    return handle

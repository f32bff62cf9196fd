"""The modules of a variant, built for the places of a host but not yet put there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.shared import SharedBlocks, has_virtual_tokens, shared_parts
from ctxpeft.errors import HostError
from ctxpeft.hosts.discover import Layer, embedding_shape
from ctxpeft.hosts.positions import check_room, check_shiftable
from ctxpeft.hosts.prompts import check_readable
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.variant import Variant

_TOO_LARGE = re.compile(
    "out of memory|allocate memory|size calculation overflowed|overflow when unpacking", re.IGNORECASE
)
Adjust = Callable[[SiteShape], SiteShape]


class Built(NamedTuple):
    """One module: `place` in the variant's list, `layer` of the host, None where it serves the model as a whole.
    `prefix` begins the names of its parameters: `layers.3.0`, `embeddings.0`, `shared.0`."""

    prefix: str
    place: int
    layer: int | None
    module: ContextModule | SharedBlocks


def build(
    model: nn.Module, layers: list[Layer], variant: Variant, at: Adjust = lambda shape: shape
) -> list[Built]:
    """All modules of a variant, by module and layer; blocks of `per: model` come before the layers they serve.

    Raises HostError, naming the module, where a layer, a head or a site is missing or memory does not suffice.
    """
    built: list[Built] = []
    for index, spec in enumerate(variant.modules):
        try:
            built += _module(model, layers, spec, index, at)
        except HostError as error:
            raise HostError(f"{variant.name}: modules[{index}]: {error}") from None
        except (MemoryError, RuntimeError, TypeError) as error:
            if not isinstance(error, MemoryError) and not _TOO_LARGE.search(str(error)):
                raise
            raise HostError(
                f"{variant.name}: modules[{index}]: its parameters do not fit into memory; `ctxpeft show` with --model "
                "counts them"
            ) from None
    return built


def state_of(built: Iterable[Built]) -> dict[str, Tensor]:
    """Parameters and saved buffers of built modules, without gradients, by the names an adapter's file gives them."""
    found: dict[str, Tensor] = {}
    for prefix, _, _, module in built:
        persistent = module.state_dict()
        found |= {f"{prefix}.{key}": p.detach() for key, p in module.named_parameters()}
        found |= {f"{prefix}.{key}": b for key, b in module.named_buffers() if key in persistent}
    return found


def on_meta(shape: SiteShape) -> SiteShape:
    """The same place without memory behind it."""
    return replace(shape, device=torch.device("meta"))


def _module(model: nn.Module, layers: list[Layer], spec: ModuleSpec, index: int, at: Adjust) -> list[Built]:
    if spec.site == "embeddings":
        only = ContextModule(spec, at(embedding_shape(model)))
        return [Built(f"embeddings.{index}", index, None, only)]
    check_one_sequence(model, spec)
    chosen = in_scope(layers, spec)
    shapes = [at(layer.shape(spec)) for layer in chosen]
    if has_virtual_tokens(spec):
        check_readable(model, layers)
        check_room(model, int(spec.memory.total()))  # type: ignore[attr-defined]
    check_shiftable(model, spec, layers[0].turnable)
    modules = [ContextModule(spec, shape) for shape in shapes]
    found = [
        Built(f"{layer.prefix}.{index}", index, layer.index, module)
        for layer, module in zip(chosen, modules, strict=True)
    ]
    if not shared_parts(spec) and not has_virtual_tokens(spec):
        return found
    return [Built(f"shared.{index}", index, None, SharedBlocks(modules, shapes[0])), *found]


def check_one_sequence(model: nn.Module, spec: ModuleSpec) -> None:
    """Raises HostError where a module asks something of one sequence and the model reads one and writes another."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return
    if spec.scope.tokens != "all":
        raise HostError(
            "scope.tokens tells the prompt of a sequence from what is generated after it; in an encoder-decoder say "
            "scope.stack: encoder (the prompt) or decoder (what is generated)"
        )
    if getattr(getattr(spec.memory, "init", None), "compiles", False):
        raise HostError(
            "a memory that begins from a text needs a model with one stack, which reads the text as its input; in an "
            "encoder-decoder begin from init: {kind: normal}"
        )


def in_scope(layers: list[Layer], spec: ModuleSpec) -> list[Layer]:
    """The layers that carry a module; indices count those of one stack that have the site.

    Raises HostError where the model has no such stack, or the stack no such layer.
    """
    stacks = list(dict.fromkeys(layer.stack for layer in layers))
    wanted = spec.scope.stack
    if wanted != "all" and wanted not in stacks:
        raise HostError(f"scope.stack is '{wanted}' and the model has {' and '.join(stacks)}")
    found: list[Layer] = []
    for stack in stacks if wanted == "all" else [wanted]:
        whole = spec.site in ("ffn", "residual")
        pool = [layer for layer in layers if layer.stack == stack and (layer.owns or not whole)]
        if pool:
            found += [pool[i] for i in spec.scope.layer_indices(len(pool))]
    if not found:
        raise HostError(
            f"the site '{spec.site}' is not in the stack '{wanted}'; it belongs to the layer as a whole"
        )
    return found

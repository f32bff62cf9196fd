"""Counting a variant on a sketch of a model: passes without values, under torch's own counters."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ctxpeft.adapters.save import file_bytes
from ctxpeft.analysis.cost._cost import Cost, Flops, Part
from ctxpeft.hosts.flops import flop_counter
from ctxpeft.hosts.sketch import Sketch
from ctxpeft.spec.variant import Variant

CONTEXT = 512
BATCHES = (2, 3)
FLOPS = ("forward", "training", "decode")


class Counts(NamedTuple):
    """Of one batch: FLOPs of a training step, bytes it keeps for backward, FLOPs of a decoding step, bytes cached."""

    forward: int
    training: int
    saved: int
    decode: int
    cache: int


def measure(model: nn.Module, variant: Variant, context: int | None = None) -> Cost:
    """Count a variant on a model, which may be on the meta device and is left as it was.

    context: tokens a row; left out 512, or the power of two below what the model can hold. The counts are those of
    attention by the fused kernel of `sdpa`, or of `eager` where the model asks for it.

    Raises HostError where the model cannot host the variant, or its forward cannot run without weights.
    """
    context = context or min(CONTEXT, _longest(model))
    sketch = Sketch(model)
    frozen = [_counts(sketch, batch, context) for batch in BATCHES]
    handle = sketch.attach(variant)
    trainable, deployed, file = handle.num_parameters(), handle.num_parameters("deployed"), file_bytes(handle)
    adapted = [_counts(sketch, batch, context) for batch in BATCHES]
    handle.detach()
    base, with_ = _split(frozen, context), _split(adapted, context)
    extra = {
        kind: tuple(a - b for a, b in zip(with_[kind], base[kind], strict=True)) for kind in Counts._fields
    }
    cached = frozen[0].cache > 0
    return Cost(
        variant=variant.name,
        context=context,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=trainable,
        deployed=deployed,
        base=Flops(*(base[kind][0] for kind in FLOPS)),
        per_token=Flops(*(extra[kind][0] for kind in FLOPS)),
        per_pass=Flops(*(extra[kind][1] for kind in FLOPS)),
        base_saved=base["saved"][0],
        saved_per_token=extra["saved"][0],
        saved_per_pass=extra["saved"][1],
        base_cache=base["cache"][0] if cached else None,
        cache=extra["cache"][0] if cached else None,
        file=file,
        parts=tuple(_parts(sketch, variant, context, [c.forward for c in frozen])),
    )


def _parts(sketch: Sketch, variant: Variant, context: int, frozen: list[int]) -> list[Part]:
    """Every module of the variant by itself."""
    found = []
    for index, module in enumerate(variant.modules if len(variant.modules) > 1 else ()):
        handle = sketch.attach(variant.model_copy(update={"modules": [module]}))
        forward = [_training(sketch, batch, context)[0] for batch in BATCHES]
        each, once = (a - b for a, b in zip(_affine(forward, context), _affine(frozen, context), strict=True))
        name = f"modules[{index}] {module.placement} {module.memory.kind}"
        found.append(Part(name, handle.num_parameters(), each, once))
        handle.detach()
    return found


def _split(counts: list[Counts], context: int) -> dict[str, tuple[int, int]]:
    """Each count a token, and a pass."""
    tokens = {"decode": 1, "cache": context + 1}
    return {
        kind: _affine([getattr(c, kind) for c in counts], tokens.get(kind, context))
        for kind in Counts._fields
    }


def _affine(counts: list[int], tokens: int) -> tuple[int, int]:
    """What a token and a pass count, from those of batches of so many rows of so many tokens."""
    few, many = BATCHES
    row = (counts[1] - counts[0]) // (many - few)
    return row // tokens, counts[0] - few * row


def _counts(sketch: Sketch, batch: int, context: int) -> Counts:
    return Counts(*_training(sketch, batch, context), *_decoding(sketch, batch, context))


def _training(sketch: Sketch, batch: int, context: int) -> tuple[int, int, int]:
    parameters = {_storage(p) for p in sketch.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        if _storage(t) not in parameters:
            kept.setdefault(_storage(t), t)
        return t

    with flop_counter() as counter, saved_tensors_hooks(keep, lambda t: t):
        out = sketch.forward(batch, context)
        forward, saved = counter.get_total_flops(), sum(t.untyped_storage().nbytes() for t in kept.values())
        kept.clear()
        torch.autograd.backward(out.sum())
        return forward, counter.get_total_flops(), saved


def _decoding(sketch: Sketch, batch: int, context: int) -> tuple[int, int]:
    cache = sketch.decode(batch, context)
    with flop_counter() as counter:
        cache = sketch.decode(batch, 1, cache)
    return counter.get_total_flops(), _cache_bytes(cache)


def _cache_bytes(cache: Any) -> int:
    """All tensors that the layers of a cache hold."""
    held = [t for layer in getattr(cache, "layers", ()) for t in vars(layer).values()]
    return sum(t.numel() * t.element_size() for t in held if isinstance(t, Tensor))


def _storage(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


def _longest(model: Any) -> int:
    told = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return 1 << ((told - 1).bit_length() - 1) if isinstance(told, int) and told > 1 else CONTEXT

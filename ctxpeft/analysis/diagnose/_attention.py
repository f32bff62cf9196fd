"""How much an adapter changes what the content attends to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.analysis.diagnose._diagnosis import Diagnosis, heats
from ctxpeft.analysis.diagnose._texts import alone, read
from ctxpeft.errors import HostError
from ctxpeft.hosts.handle import Handle


@torch.no_grad()
def attention_shift(handles: dict[str, Handle], ids: Tensor) -> Diagnosis:
    """Total variation between the content attention with and without each adapter, by layer and head.

    The weights over the content are normalised to one first, so that what a prefix takes from all of them alike does
    not count: a prefix cannot change them in its own layer (arXiv:2310.19698), only through the hidden states of the
    layers below (arXiv:2506.13674, appendix). Runs the eager attention, which alone returns weights. Raises HostError
    for a model that does not return them.
    """
    rows: list[tuple[str, int, int, float]] = []
    maps: dict[str, Tensor] = {}
    for name, handle in handles.items():
        with eager(handle.model), alone(handle):
            adapted = _weights(handle.model, ids)
            with handle.disabled():
                base = _weights(handle.model, ids)
        shift = torch.stack([_distance(a, b) for a, b in zip(adapted, base, strict=True)])
        maps[name] = shift
        rows += [
            (name, layer, head, float(v)) for layer, line in enumerate(shift) for head, v in enumerate(line)
        ]
    return Diagnosis(
        "attention",
        "Total variation (0 to 1) between the attention over the content with and without the adapter, mean over "
        "queries and windows.",
        ("adapter", "layer", "head", "shift"),
        tuple(rows),
        lambda figure: heats(figure, {name: m.cpu() for name, m in maps.items()}, "head"),
    )


@contextlib.contextmanager
def eager(model: Any) -> Iterator[None]:
    """Inside the block the model runs the attention that returns its weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _weights(model: nn.Module, ids: Tensor) -> list[Tensor]:
    device = next(model.parameters()).device
    found = read(model, ids.to(device), output_attentions=True).attentions
    if not found or any(layer is None for layer in found):
        raise HostError(f"{type(model).__name__} does not return attention weights")
    return [layer.float() for layer in found]


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """(H,) total variation of two (B, H, T, S) weightings, each normalised over what a query sees."""
    a, b = (w / w.sum(-1, keepdim=True).clamp_min(1e-30) for w in (a, b))
    return 0.5 * (a - b).abs().sum(-1).mean((0, 2))

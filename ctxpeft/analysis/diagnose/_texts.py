"""Texts as token ids of equal length, and a forward pass over them that leaves what the modules did."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ctxpeft.errors import DataError
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.handle import Handle
from ctxpeft.hosts.passes import segments
from ctxpeft.hosts.watching import Sight, watching


def windows(tokenizer: Any, texts: Sequence[str], length: int, limit: int) -> Tensor:
    """Up to `limit` rows of `length` tokens, cut from the texts one after another. (N, length)

    Raises DataError if the texts hold fewer than `length` tokens.
    """
    stream: list[int] = []
    for text in texts:
        stream += tokenizer(text, verbose=False)["input_ids"]
        if len(stream) >= length * limit:
            break
    count = min(limit, len(stream) // length)
    if count == 0:
        raise DataError(f"the texts hold {len(stream)} tokens and one window takes {length}: give more text")
    return torch.tensor(stream[: count * length]).view(count, length)


@contextlib.contextmanager
def alone(handle: Handle) -> Iterator[None]:
    """Inside the block no other adapter of the model acts."""
    controller = controller_of(handle.model)
    before, controller.active = controller.active, (handle.name,)
    try:
        yield
    finally:
        controller.active = before


def read(model: Any, ids: Tensor, **options: Any) -> Any:
    """A forward pass over texts that keeps no cache; all is prompt where `ctxpeft.segments` does not say otherwise."""
    told = controller_of(model).segments
    with segments(model, torch.zeros_like(ids, dtype=torch.bool) if told is None else told):
        return model(input_ids=ids, use_cache=False, **options)


@torch.no_grad()
def seen(handle: Handle, ids: Tensor, rows: int = 8) -> list[Sight]:
    """What every module of the adapter, alone, did over the windows, `rows` at a time, joined along the rows."""
    device = next(handle.model.parameters()).device
    parts: dict[tuple[int | None, int], list[Sight]] = {}
    with alone(handle), watching(handle) as sights:
        for start in range(0, len(ids), rows):
            read(handle.model, ids[start : start + rows].to(device))
            for sight in sights:
                parts.setdefault((sight.layer, sight.place), []).append(sight)
            sights.clear()
    return [_joined(group) for group in parts.values()]


def _joined(group: list[Sight]) -> Sight:
    def cat(name: str) -> Any:
        tensors = [getattr(sight, name) for sight in group]
        if tensors[0] is None or tensors[0].shape[0] == 1 != group[0].output.shape[0]:
            return tensors[0]
        return torch.cat(tensors)

    first = group[0]
    return Sight(first.layer, first.place, cat("output"), cat("change"), cat("weight"), cat("gate"))

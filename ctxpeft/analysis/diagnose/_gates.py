"""How far the gates of an adapter are open."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.analysis.diagnose._diagnosis import Diagnosis, heats
from ctxpeft.analysis.diagnose._texts import seen
from ctxpeft.hosts.handle import Handle


def gates(handles: dict[str, Handle], ids: Tensor) -> Diagnosis:
    """Mean and standard deviation of every gate over tokens and windows, by layer and head (channels averaged)."""
    rows: list[tuple[str, int, int | None, int, float, float]] = []
    maps: dict[str, list[Tensor]] = {}
    for name, handle in handles.items():
        for sight in seen(handle, ids):
            if sight.gate is None:
                continue
            value = sight.gate.float().mean(-1)
            mean = value.mean((0, 2))
            spread = value.std((0, 2), correction=0)
            maps.setdefault(f"{name}, module {sight.place}", []).append(mean)
            rows += [
                (name, sight.place, sight.layer, head, float(mean[head]), float(spread[head]))
                for head in range(len(mean))
            ]
    return Diagnosis(
        "gates",
        "Value of the gates, mean and standard deviation over tokens; a gate of one value for all heads has one row.",
        ("adapter", "module", "layer", "head", "mean", "deviation"),
        tuple(rows),
        (lambda figure: heats(figure, {k: torch.stack(v).cpu() for k, v in maps.items()}, "head"))
        if maps
        else None,
    )

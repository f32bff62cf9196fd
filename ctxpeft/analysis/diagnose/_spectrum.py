"""How many directions the memory's query-dependent bias uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.analysis.diagnose._diagnosis import INK, Diagnosis, plain_axes
from ctxpeft.analysis.diagnose._texts import seen
from ctxpeft.hosts.handle import Handle
from ctxpeft.hosts.watching import Sight

SHOWN = 64
TINY = 1e-30


def spectrum(handles: dict[str, Handle], ids: Tensor) -> Diagnosis:
    """Eigenvalues of the covariance of what each module adds, over all tokens of the windows, heads side by side.

    effective rank: exp of the entropy of the normalised eigenvalues. top: the largest one's share. The bias of
    Prefix-Tuning collapses onto a few axes, that of Prefix-Tuning+ does not (arXiv:2506.13674, analysis of the bias).
    """
    rows: list[tuple[str, int, int | None, float, float, float]] = []
    curves: dict[str, list[Tensor]] = {}
    for name, handle in handles.items():
        for sight in seen(handle, ids):
            values = eigenvalues(sight)
            total = values.sum().clamp_min(TINY)
            p = values / total
            entropy = -(p * torch.log(p.clamp_min(TINY))).sum()
            rows.append(
                (name, sight.place, sight.layer, float(torch.exp(entropy)), float(p[0]), float(values[0]))
            )
            curves.setdefault(f"{name}, module {sight.place}", []).append(p)
    return Diagnosis(
        "spectrum",
        "Covariance of what each module adds to the output, over tokens: effective rank, and share and size of the "
        "largest eigenvalue.",
        ("adapter", "module", "layer", "effective rank", "top share", "top eigenvalue"),
        tuple(rows),
        lambda figure: _paint(figure, curves),
    )


def eigenvalues(sight: Sight) -> Tensor:
    """Of the covariance of the change, falling, in float64: (H dv,)."""
    change = sight.change.double()
    flat = change.transpose(1, 2).flatten(2).flatten(0, 1)
    centred = flat - flat.mean(0)
    values: Tensor = torch.linalg.svdvals(centred).square() / max(len(flat) - 1, 1)
    return values


def _paint(figure: Any, curves: dict[str, list[Tensor]]) -> None:
    axes = figure.subplots()
    for label, layers in curves.items():
        count = min(SHOWN, *(len(p) for p in layers))
        mean = torch.stack([p[:count] for p in layers]).mean(0).clamp_min(1e-12)
        axes.plot(range(1, count + 1), mean.cpu(), label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 1.2)
    axes.set_xlabel("eigenvalue", fontsize=8.5)
    axes.set_title("Share of the bias's variance, mean of layers", loc="left", fontsize=10, color=INK)
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)

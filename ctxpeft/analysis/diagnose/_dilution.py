"""How much of a query the memory keeps as the input grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ctxpeft.analysis.diagnose._diagnosis import INK, Diagnosis, plain_axes
from ctxpeft.analysis.diagnose._texts import seen
from ctxpeft.errors import DataError
from ctxpeft.hosts.handle import Handle
from ctxpeft.hosts.watching import Sight

TINY = 1e-12


def dilution(handles: dict[str, Handle], ids: Tensor, lengths: Sequence[int]) -> Diagnosis:
    """Weight and share of every adapter's memory in queries that see n tokens, mean over heads and windows.

    weight: rho, what an inside memory takes of the softmax (arXiv:2506.13674, eq. 3); empty for an outside one. share:
    |change| / (|change| + |o|), for both. One pass over windows `ids` (N, T) gives every length up to T, because the
    model is causal. Raises DataError where a length exceeds the windows.
    """
    if max(lengths) > ids.shape[1]:
        raise DataError(f"length {max(lengths)} is more than the {ids.shape[1]} tokens of a window")
    rows: list[tuple[str, int, int | None, int, float | None, float]] = []
    for name, handle in handles.items():
        for sight in seen(handle, ids):
            for n in lengths:
                weight = None if sight.weight is None else float(sight.weight[:, :, n - 1].mean())
                rows.append((name, sight.place, sight.layer, n, weight, _share(sight, n)))
    return Diagnosis(
        "dilution",
        "Weight of the memory in the softmax (inside) and share of its change in the output, for queries that see n "
        "tokens; mean over heads and windows.",
        ("adapter", "module", "layer", "n", "weight", "share"),
        tuple(rows),
        lambda figure: _paint(figure, rows),
    )


def _share(sight: Sight, n: int) -> float:
    change = sight.change[:, :, n - 1].norm(dim=-1)
    output = sight.output[:, :, n - 1].norm(dim=-1)
    return float((change / (change + output + TINY)).mean())


def _paint(figure: Any, rows: list[tuple[str, int, int | None, int, float | None, float]]) -> None:
    axes = figure.subplots()
    series: dict[str, dict[int, list[float]]] = {}
    for name, place, _, n, weight, share in rows:
        label = f"{name}, module {place}: " + ("weight" if weight is not None else "share")
        series.setdefault(label, {}).setdefault(n, []).append(share if weight is None else weight)
    for label, points in series.items():
        lengths = sorted(points)
        middle = [sum(points[n]) / len(points[n]) for n in lengths]
        (line,) = axes.plot(lengths, middle, marker="o", markersize=4, label=label)
        axes.fill_between(
            lengths,
            [min(points[n]) for n in lengths],
            [max(points[n]) for n in lengths],
            color=line.get_color(),
            alpha=0.12,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, None)
    axes.set_xlabel("tokens that the query sees", fontsize=8.5)
    axes.set_title(
        "What the memory keeps (line: mean of layers, band: their range)", loc="left", fontsize=10, color=INK
    )
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)

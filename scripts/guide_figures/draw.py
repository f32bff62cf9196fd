"""The pictures: SVG without a ground, in colours that read on white and on black."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxpeft.files import replacing

INK, BLUE, RED, GREEN, AMBER = "#7d8590", "#4184e4", "#d9534a", "#3f9e57", "#c08a1e"
COLOURS = {
    "prefix-tuning": RED,
    "prefix-tuning, as it begins": INK,
    "prefix-tuning, trained": RED,
    "length-compensated, as it begins": BLUE,
    "construction-1-moved-out": BLUE,
    "construction-2-kernelised": GREEN,
    "construction-3-free-matrix": AMBER,
    "prefix-tuning-plus": BLUE,
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ctxpeft",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}

ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "ncols": 3,
    "borderaxespad": 0.2,
    "handlelength": 1.4,
    "columnspacing": 1.2,
    "fontsize": 9,
}


def draw(name: str, found: dict[str, Any], path: Path) -> None:
    """Write one picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 3.1), layout="constrained")
        DRAWINGS[name](axes, found[name])
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


def _lines(axes: Any, found: dict[str, list[dict[str, float]]], label: str) -> None:
    for name, points in found.items():
        n = [p["n"] for p in points]
        axes.plot(n, [p["mean"] for p in points], color=COLOURS[name], marker="o", markersize=3.5, label=name)
        axes.fill_between(
            n,
            [p["least"] for p in points],
            [p["most"] for p in points],
            color=COLOURS[name],
            alpha=0.1,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, None)
    axes.set_xlabel("tokens that the query sees (line: mean of layers, band: their range)")
    axes.set_ylabel(label)
    axes.legend(**ABOVE)


def _competition(axes: Any, found: dict[str, Any]) -> None:
    _lines(axes, found, "weight ρ of the prefix")


def _moved_out(axes: Any, found: dict[str, Any]) -> None:
    _lines(axes, found, "share of the prefix in o")


def _kernel(axes: Any, found: dict[str, Any]) -> None:
    for name, about in found.items():
        axes.stairs(about["queries"], about["edges"], fill=True, alpha=0.45, color=COLOURS[name], linewidth=0)
        axes.stairs(about["queries"], about["edges"], color=COLOURS[name], label=name, linewidth=1.2)
    axes.set_xlabel("slots that a query reads (exp of the entropy of its weights)")
    axes.set_ylabel("share of queries")
    axes.legend(**ABOVE)


def _free_matrix(axes: Any, found: dict[str, Any]) -> None:
    for name, values in found.items():
        axes.plot(range(1, len(values) + 1), values, color=COLOURS[name], label=name)
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 1.5)
    axes.set_xlabel("eigenvalue of the covariance of the answers, heads side by side")
    axes.set_ylabel("share of its variance")
    axes.legend(**ABOVE)


def _dropped(axes: Any, found: dict[str, Any]) -> None:
    width = 0.8 / len(found)
    for index, (name, values) in enumerate(found.items()):
        places = [layer + width * (index - (len(found) - 1) / 2) for layer in range(len(values))]
        axes.bar(places, values, width * 0.92, color=COLOURS[name], label=name)
    axes.set_xlabel("layer")
    axes.set_ylabel("share of the memory in o")
    axes.grid(axis="x", visible=False)
    axes.legend(**ABOVE)


DRAWINGS: dict[str, Callable[[Any, Any], None]] = {
    "competition": _competition,
    "moved-out": _moved_out,
    "kernel": _kernel,
    "free-matrix": _free_matrix,
    "dropped": _dropped,
}

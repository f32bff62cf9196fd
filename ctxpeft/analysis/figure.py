"""A comparison as one figure: every seed, the mean and its interval."""

from __future__ import annotations

from pathlib import Path

from ctxpeft.analysis.comparison import Comparison
from ctxpeft.analysis.table import counted
from ctxpeft.files import replacing

INK, MUTED, GOOD, BAD, PLAIN = "#1b1f24", "#8b949e", "#1a7f5a", "#b5473c", "#3d6cb3"


def draw(result: Comparison, path: Path) -> None:
    """Write a PNG: one row a variant, points are seeds, the bar is the 95 % interval of the mean.

    Green and red rows differ from the reference (the first row) significantly, for better and for worse.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    entries = result.entries
    figure, axes = plt.subplots(figsize=(8.5, 1.4 + 0.55 * len(entries)), dpi=150, layout="constrained")
    axes.axvline(entries[0].mean, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    for y, entry in enumerate(entries):
        colour = PLAIN
        if entry.difference is not None and entry.significant:
            better = (entry.difference.mean > 0) == result.greater_is_better
            colour = GOOD if better else BAD
        axes.plot(
            [entry.interval.low, entry.interval.high],
            [y, y],
            color=colour,
            linewidth=5,
            alpha=0.28,
            solid_capstyle="round",
        )
        offsets = [y + 0.16 * (2 * i / max(len(entry.values) - 1, 1) - 1) for i in range(len(entry.values))]
        if len(entry.values) == 1:
            offsets = [float(y)]
        axes.scatter(entry.values, offsets, s=14, color=colour, alpha=0.75, linewidths=0, zorder=2)
        axes.plot([entry.mean] * 2, [y - 0.26, y + 0.26], color=colour, linewidth=2.2, zorder=3)
        text = f"{entry.mean:.3f}"
        if entry.difference is not None:
            d = entry.difference
            text += f"   {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=INK)
    axes.set_yticks(
        range(len(entries)), [f"{e.name}\n{e.trainable:,} parameters" for e in entries], fontsize=8.5
    )
    axes.set_ylim(len(entries) - 0.5, -0.5)
    arrow = "higher is better" if result.greater_is_better else "lower is better"
    seeds = counted(result.seeds, "seed")
    axes.set_xlabel(f"test {result.metric} ({arrow}); points: {seeds}, bars: 95 % interval", fontsize=8.5)
    axes.set_title(
        f"{result.task} on {Path(result.model).name}, {result.steps} steps",
        loc="left",
        fontsize=10,
        color=INK,
    )
    axes.text(
        1.02,
        1.02,
        f"mean   difference to {entries[0].name}",
        transform=axes.transAxes,
        fontsize=7.5,
        color=MUTED,
    )
    axes.tick_params(labelsize=8.5, length=0)
    axes.grid(axis="x", color=MUTED, alpha=0.2, linewidth=0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)

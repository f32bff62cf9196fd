"""What a variant gains on the data it was trained for, against what it does to everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctxpeft.analysis.comparison import Comparison, Entry
from ctxpeft.analysis.diagnose import Diagnosis
from ctxpeft.analysis.diagnose._diagnosis import INK, MUTED, Cell, plain_axes
from ctxpeft.analysis.statistics import Interval
from ctxpeft.analysis.table import counted

COLUMNS = ("variant", "trainable", "test", "ood", "ood low", "ood high", "forgetting", "low", "high", "front")


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in one coordinate without losing in the other; smaller is better."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(a <= x and b <= y and (a < x or b < y) for a, b in points)
    ]


def transfer(result: Comparison) -> Diagnosis:
    """Test metric against the out-of-distribution metric and against forgetting, a row a variant.

    front: of which of the two pairs the variant is Pareto optimal by its means; intervals say how sure that is.
    """
    fronts = {what: {entry.name for entry in _front(result, what)} for what in _asked(result)}
    rows: list[tuple[Cell, ...]] = []
    for entry in result.entries:
        front = ", ".join(what for what, names in fronts.items() if entry.name in names)
        rows.append(
            (entry.name, entry.trainable, entry.mean, *_cells(entry.ood), *_cells(entry.forgetting), front)
        )
    text = [f"Test {result.metric} on {result.task}, {counted(result.seeds, 'seed')}"]
    if "ood" in fronts:
        text.append(f"{result.ood_metric} on out-of-distribution data" + _frozen(result, "ood"))
    if "forgetting" in fronts:
        text.append(
            "rise of the loss on unrelated text over the frozen base's in nats a token"
            + _frozen(result, "unrelated")
        )
    return Diagnosis(
        "transfer",
        "; ".join(text)
        + ". Intervals are 95 % (bootstrap over seeds and examples); the front is that of the means.",
        COLUMNS,
        tuple(rows),
        lambda figure: _paint(figure, result),
    )


def _asked(result: Comparison) -> list[str]:
    return [what for what in ("ood", "forgetting") if any(_of(e, what) is not None for e in result.entries)]


def _front(result: Comparison, what: str) -> list[Entry]:
    """The Pareto optimal entries among those that were measured; smaller is better in both coordinates."""
    sign = -1 if result.greater_is_better else 1
    other = 1 if what == "forgetting" or not result.ood_greater_is_better else -1
    measured = [(e, found) for e in result.entries if (found := _of(e, what)) is not None]
    return [measured[i][0] for i in pareto([(sign * e.mean, other * found.mean) for e, found in measured])]


def _of(entry: Entry, what: str) -> Interval | None:
    return entry.ood if what == "ood" else entry.forgetting


def _cells(found: Interval | None) -> tuple[Cell, Cell, Cell]:
    return (None, None, None) if found is None else (found.mean, found.low, found.high)


def _frozen(result: Comparison, name: str) -> str:
    return f" (frozen base: {result.base[name]:.3f})" if name in result.base else ""


def _paint(figure: Any, result: Comparison) -> None:
    asked = _asked(result)
    figure.set_size_inches(4.8 * len(asked) + 2.0, 4.4)
    panels = figure.subplots(1, len(asked), squeeze=False)[0]
    for axes, what in zip(panels, asked, strict=True):
        _panel(axes, result, what)
    figure.legend(
        *panels[-1].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False
    )
    figure.suptitle(
        f"{result.task}: what is gained and what is lost", x=0.01, ha="left", fontsize=10, color=INK
    )


def _panel(axes: Any, result: Comparison, what: str) -> None:
    front = _front(result, what)
    best = sorted((e.mean, found.mean) for e in front if (found := _of(e, what)) is not None)
    axes.plot(
        [x for x, _ in best],
        [y for _, y in best],
        color=MUTED,
        linewidth=1,
        linestyle=(0, (4, 3)),
        drawstyle="steps-pre" if result.greater_is_better else "steps-post",
        zorder=1,
        label="front of the means",
    )
    for index, entry in enumerate(result.entries):
        other, own = _of(entry, what), entry.interval
        if other is None:
            continue
        axes.errorbar(
            entry.mean,
            other.mean,
            xerr=[[max(entry.mean - own.low, 0)], [max(own.high - entry.mean, 0)]],
            yerr=[[max(other.mean - other.low, 0)], [max(other.high - other.mean, 0)]],
            color=f"C{index % 10}",
            marker="o" if entry in front else "X",
            markersize=6,
            elinewidth=0.9,
            capsize=2,
            linewidth=0,
            label=entry.name,
        )
    if what == "forgetting":
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylabel("loss on unrelated text: rise, nats a token", fontsize=8.5)
    else:
        arrow = "higher" if result.ood_greater_is_better else "lower"
        axes.set_ylabel(f"{result.ood_metric} out of distribution ({arrow} is better)", fontsize=8.5)
    arrow = "higher" if result.greater_is_better else "lower"
    axes.set_xlabel(f"test {result.metric} ({arrow} is better)", fontsize=8.5)
    plain_axes(axes)

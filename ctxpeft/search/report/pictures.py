"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ctxpeft.search.outcome import Row
from ctxpeft.search.report.choices import Choice
from ctxpeft.search.report.figure import ACCENT, INK, MUTED, SECOND, svg
from ctxpeft.search.score import natural


def axis_label(objective: str) -> str:
    """What the score axis says."""
    return "held-out loss (lower is better)" if objective == "loss" else "held-out metric"


def history(rows: Sequence[Row], objective: str) -> str:
    """Every completed trial in order, anchors apart, and the best so far."""
    done = [
        (r, natural(r.value, objective)) for r in rows if r.outcome == "completed" and r.value is not None
    ]
    pruned = [
        (r.number, natural(r.rung, objective)) for r in rows if r.outcome == "pruned" and r.rung is not None
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        designs = [(r.number, v) for r, v in done if not r.anchor]
        if designs:
            axes.scatter(*zip(*designs, strict=True), s=26, color=ACCENT, label="completed design", zorder=3)
        if pruned and done:
            values = [v for _, v in done]
            room = 0.15 * (max(values) - min(values)) or 0.05
            low, high = min(values) - room, max(values) + room
            axes.set_ylim(low, high)
            cut = [(number, min(max(v, low), high)) for number, v in pruned]
            label = "pruned, at the rung (cut at the edge)"
            style = {"s": 22, "marker": "x", "color": MUTED, "zorder": 2, "clip_on": False}
            axes.scatter(*zip(*cut, strict=True), label=label, **style)
        _name_anchors(axes, [(r.number, v, r.anchor) for r, v in done if r.anchor])
        steps, best = [], None
        for r, v in done:
            best = v if best is None else (min(best, v) if objective == "loss" else max(best, v))
            steps.append((r.number, best))
        if steps:
            axes.step(
                *zip(*steps, strict=True),
                where="post",
                color=INK,
                linewidth=1.2,
                label="best so far",
                zorder=1,
            )
        axes.set_xlabel("trial")
        axes.set_ylabel(axis_label(objective))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best", fontsize=8)

    return svg("history", 7.2, 3.4, draw, "Held-out objective of every trial in order, with the best so far")


def size_against_score(rows: Sequence[Row], objective: str) -> str:
    """Trainable parameters against the score of completed trials."""
    done = [
        (r.parameters, natural(r.value, objective), r.anchor)
        for r in rows
        if r.outcome == "completed" and r.value is not None and r.parameters
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        designs = [(p, v) for p, v, anchor in done if not anchor]
        if designs:
            axes.scatter(*zip(*designs, strict=True), s=26, color=ACCENT, label="design", zorder=3)
        _name_anchors(axes, [(p, v, anchor) for p, v, anchor in done if anchor])
        axes.set_xlabel("trainable parameters")
        axes.set_ylabel(axis_label(objective))
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
        )
        axes.legend(loc="best", fontsize=8)

    return svg("size", 7.2, 3.2, draw, "Trainable parameters against the held-out objective")


def effects(choices: Sequence[Choice], objective: str) -> str:
    """The score of every trained design by what was chosen, one panel a question."""
    if not choices:
        return ""
    heights = [len(choice.values) + 0.9 for choice in choices]

    def draw(figure: Any) -> None:
        panels = figure.subplots(len(choices), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, choice in zip(panels[:, 0], choices, strict=True):
            names = [f"{value} ({len(scores)})" for value, scores in choice.values]
            for place, (_, scores) in enumerate(choice.values):
                points = [natural(s, objective) for s in scores]
                axes.scatter(points, [place] * len(points), s=30, color=ACCENT, alpha=0.6, linewidths=0)
                axes.scatter([fmean(points)], [place], s=90, marker="|", color=INK, linewidths=2)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_title(choice.question, loc="left", fontsize=9, fontweight="bold")
        panels[-1, 0].set_xlabel(f"{axis_label(objective)}, at the rung")

    return svg(
        "effects", 7.2, 0.25 * sum(heights) + 0.6, draw, "Held-out objective at the rung by design choice"
    )


def rung_against_full(rows: Sequence[Row], objective: str) -> str:
    """What the rung promised and what the full run gave."""
    done = [
        (natural(r.rung, objective), natural(r.value, objective))
        for r in rows
        if r.outcome == "completed" and r.rung is not None and r.value is not None
    ]
    if len(done) < 3:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.scatter(*zip(*done, strict=True), s=26, color=ACCENT)
        axes.set_xlabel(f"{axis_label(objective)}, at the rung")
        axes.set_ylabel("after the full run")

    return svg("rung", 7.2, 3.0, draw, "Held-out objective at the rung against the full run")


def _name_anchors(axes: Any, anchors: Sequence[tuple[float, float, str]]) -> None:
    if not anchors:
        return
    xs, ys, names = zip(*anchors, strict=True)
    axes.scatter(xs, ys, s=34, marker="D", color=SECOND, label="anchor", zorder=4)
    low, high = axes.get_xlim()
    for index, (x, y, name) in enumerate(zip(xs, ys, names, strict=True)):
        side = "right" if x > (low + high) / 2 else "left"
        shift = -6 if side == "right" else 6
        place = {"xytext": (shift, 4 if index % 2 else -9), "textcoords": "offset points", "ha": side}
        axes.annotate(name, (x, y), fontsize=8, color=INK, **place)

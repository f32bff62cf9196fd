"""The pictures of a report: how the search went, what was chosen, what the rung promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctxpeft.search.finals import Versus
from ctxpeft.search.outcome import Row
from ctxpeft.search.report.choices import Choice
from ctxpeft.search.report.figure import ACCENT, BAD, GOOD, INK, MUTED, SECOND, svg
from ctxpeft.search.report.front import Plane
from ctxpeft.search.report.scale import Scale
from ctxpeft.search.report.words import interval, metric

WIDTH = 7.2


def against(versus: Sequence[Versus]) -> str:
    """Winner minus each anchor with its interval, one row an anchor; what is better lies on the right."""
    if not versus:
        return ""
    colours = {"better": GOOD, "worse": BAD}

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1)
        for place, v in enumerate(versus):
            colour = colours.get(v.verdict, MUTED)
            axes.plot(
                [v.interval.low, v.interval.high],
                [place, place],
                color=colour,
                linewidth=3,
                solid_capstyle="butt",
            )
            axes.scatter([v.interval.mean], [place], s=36, color=colour, zorder=3)
        axes.set_yticks(range(len(versus)), [v.anchor for v in versus])
        axes.set_ylim(len(versus) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        if not versus[0].greater_is_better:
            axes.invert_xaxis()
        axes.set_xlabel(f"winner minus anchor, {versus[0].split} {metric(versus[0].metric)}; right is better")

    told = "; ".join(f"{v.anchor} {interval(v)}, {v.verdict}" for v in versus)
    return svg(
        "against",
        WIDTH,
        0.62 + 0.3 * len(versus),
        draw,
        f"Winner minus each anchor with its interval: {told}",
    )


def history(rows: Sequence[Row], scale: Scale, rung: Scale) -> str:
    """Every completed trial in order, anchors apart, and the best so far; pruned ones where the rung is comparable."""
    done = [(r, scale.of(r.value)) for r in rows if r.outcome == "completed" and r.value is not None]
    pruned = [
        (r.number, rung.of(r.rung))
        for r in rows
        if r.outcome == "pruned" and r.rung is not None and rung.objective == scale.objective
    ]
    steps: list[tuple[int, float]] = []
    for row, value in done:
        steps.append((row.number, scale.better(value, steps[-1][1]) if steps else value))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        designs = [(r.number, v) for r, v in done if not r.anchor]
        if designs:
            axes.scatter(*zip(*designs, strict=True), s=26, color=ACCENT, label="completed design", zorder=3)
        if pruned and done:
            low, high = _room([v for _, v in done])
            axes.set_ylim(low, high)
            cut = [(number, min(max(v, low), high)) for number, v in pruned]
            label = "pruned, at the rung (cut at the edge)"
            style = {"s": 22, "marker": "x", "color": MUTED, "zorder": 2, "clip_on": False}
            axes.scatter(*zip(*cut, strict=True), label=label, **style)
        _name(axes, [(r.number, v, r.anchor) for r, v in done if r.anchor])
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
        axes.set_ylabel(scale.label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes)

    best = f"; the best is {steps[-1][1]:.4f}" if steps else ""
    return svg("history", WIDTH, 3.5, draw, f"Objective of {len(done)} completed trials in order{best}")


def pareto(plane: Plane, scale: Scale) -> str:
    """The first objective against another one, with the trials that nothing beats."""
    shown = [
        (r, x, scale.of(r.value))
        for r, x in zip(plane.rows, plane.points, strict=True)
        if r.value is not None
    ]
    edge = sorted((x, y, r) for r, x, y in shown if r.number in plane.front)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        designs = [(x, y) for r, x, y in shown if not r.anchor]
        if designs:
            axes.scatter(*zip(*designs, strict=True), s=26, color=ACCENT, label="design", zorder=3)
        best = [(x, y) for x, y, _ in edge]
        if plane.whole:
            style = {"where": "post", "color": INK, "linewidth": 1.2, "zorder": 1}
            axes.step(*zip(*best, strict=True), label="Pareto front", **style)
        else:
            style = {"s": 110, "facecolors": "none", "edgecolors": INK, "linewidths": 1.2, "zorder": 2}
            axes.scatter(*zip(*best, strict=True), label="on the front of all objectives", **style)
        anchors = [(x, y, r.anchor) for r, x, y in shown if r.anchor]
        found = [(x, y, f"trial {r.number}") for x, y, r in edge if not r.anchor]
        _name(axes, [*anchors, *found], len(found))
        axes.margins(y=0.12)
        axes.set_xlabel(plane.title)
        axes.set_ylabel(scale.label)
        if plane.name in ("parameters", "bytes"):
            axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g}k" if v >= 1000 else f"{v:g}")
        _legend(axes)

    told = "; ".join(f"{r.anchor or f'trial {r.number}'} {x:g}, {y:.4f}" for x, y, r in edge)
    text = f"{plane.title} against {scale.label}; on the front: {told}"
    return svg(f"pareto-{plane.name}", WIDTH, 3.4, draw, text)


def effects(choices: Sequence[Choice], scale: Scale) -> str:
    """The score of every trained design by what was chosen, one panel a question."""
    if not choices:
        return ""
    heights = [len(choice.answers) + 0.9 for choice in choices]
    low, high = _core([scale.of(s) for choice in choices for a in choice.answers for s in a.scores])

    def inside(value: float) -> float:
        return min(max(value, low), high)

    def draw(figure: Any) -> None:
        panels = figure.subplots(len(choices), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, choice in zip(panels[:, 0], choices, strict=True):
            for place, answer in enumerate(choice.answers):
                points = [inside(scale.of(s)) for s in answer.scores]
                axes.scatter(points, [place] * len(points), s=26, color=ACCENT, alpha=0.55, linewidths=0)
                if answer.interval is not None:
                    ends = [inside(scale.of(answer.interval.low)), inside(scale.of(answer.interval.high))]
                    axes.plot(ends, [place, place], color=INK, linewidth=1.2, zorder=1)
                axes.scatter(
                    [inside(scale.of(answer.mean))], [place], s=90, marker="|", color=INK, linewidths=2
                )
            axes.set_yticks(
                range(len(choice.answers)), [f"{a.name} ({len(a.scores)})" for a in choice.answers]
            )
            axes.set_ylim(len(choice.answers) - 0.4, -0.6)
            axes.set_title(choice.question, loc="left", fontsize=9, fontweight="bold")
        room = 0.03 * (high - low)
        panels[-1, 0].set_xlim(low - room, high + room)
        panels[-1, 0].set_xlabel(f"{scale.label}, at the rung")

    told = "; ".join(f"{c.question}: {c.answers[0].name} has the best mean" for c in choices)
    height = 0.25 * sum(heights) + 0.6
    return svg("effects", WIDTH, height, draw, f"Objective at the rung by design choice. {told}")


def rung_against_full(rows: Sequence[Row], scale: Scale, rung: Scale) -> str:
    """What the rung promised and what the full run gave."""
    done = [
        (r.anchor, rung.of(r.rung), scale.of(r.value))
        for r in rows
        if r.outcome == "completed" and r.rung is not None and r.value is not None
    ]
    if len(done) < 3:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for label, colour, marker, mine in (
            ("design", ACCENT, "o", [(x, y) for anchor, x, y in done if not anchor]),
            ("anchor", SECOND, "D", [(x, y) for anchor, x, y in done if anchor]),
        ):
            if mine:
                axes.scatter(*zip(*mine, strict=True), s=26, color=colour, marker=marker, label=label)
        axes.set_xlabel(f"{rung.label}, at the rung")
        axes.set_ylabel("after the full run" if rung == scale else f"{scale.label}, after the full run")
        _legend(axes)

    return svg("rung", WIDTH, 3.2, draw, f"Objective at the rung against the full run, {len(done)} trials")


def _room(values: Sequence[float]) -> tuple[float, float]:
    room = 0.15 * (max(values) - min(values)) or 0.05
    return min(values) - room, max(values) + room


def _core(values: Sequence[float]) -> tuple[float, float]:
    """The range without far outliers: three times the quartiles' distance beyond them."""
    import numpy as np

    first, third = np.quantile(values, [0.25, 0.75])
    reach = 3 * (third - first)
    return max(min(values), float(first - reach)), min(max(values), float(third + reach))


def _legend(axes: Any) -> None:
    """Above the axes, where it covers nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4, fontsize=8)


def _name(axes: Any, points: Sequence[tuple[float, float, str]], unmarked: int = 0) -> None:
    """Anchors as diamonds with their names; the last `unmarked` points get a name only."""
    if not points:
        return
    marked = points[: len(points) - unmarked]
    if marked:
        xs, ys, _ = zip(*marked, strict=True)
        axes.scatter(xs, ys, s=34, marker="D", color=SECOND, label="anchor", zorder=4)
    low, high = axes.get_xlim()
    for index, (x, y, name) in enumerate(sorted(points, key=lambda point: point[1])):
        side = "right" if x > (low + high) / 2 else "left"
        shift = -6 if side == "right" else 6
        place = {"xytext": (shift, 4 if index % 2 else -9), "textcoords": "offset points", "ha": side}
        axes.annotate(name, (x, y), fontsize=8, color=INK, **place)

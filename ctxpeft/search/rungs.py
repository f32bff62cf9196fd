"""Successive halving of the search's own: who goes on from a rung, with one objective or several."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ctxpeft.search.outcome import Row
from ctxpeft.search.pareto import Point, ahead
from ctxpeft.search.score import natural
from ctxpeft.search.settings import Search


def stopped(search: Search, rows: Sequence[Row], level: int, rung: float, beside: dict[str, float]) -> str:
    """Why a design stops at a rung; "" if it goes on.

    It goes on if fewer than `keep` of all designs so far stand before it: are smaller, or with several objectives, lie
    on an earlier Pareto front of the held-out one and of what is known or measured of the others. Optuna's own pruners
    refuse several objectives.

    Args:
        search: how many go on, and how many are let through before any is stopped.
        rows: the trials so far.
        level: which rung, from 0.
        rung: the held-out objective of this design there.
        beside: what is known of it there beside that, by name; smaller is better.
    """
    if search.keep == 1:
        return ""
    names = [name for name in search.objectives if name in beside]
    reached = [
        row
        for row in rows
        if len(row.levels) > level
        and row.outcome in ("completed", "pruned")
        and row.beside(level).keys() >= set(names)
    ]
    if len(reached) < max(1, search.warmup):
        return ""

    def point(value: float, beside: dict[str, float]) -> Point:
        return [value, *(beside[name] for name in names)]

    points = [point(row.levels[level], row.beside(level)) for row in reached]
    allowed = max(1, math.ceil(search.keep * len(points)))
    before = ahead(points, point(rung, beside))
    if before < allowed:
        return ""
    where = "at the rung" if len(search.rungs) == 1 else f"at rung {level + 1}"
    said = natural(rung, search.quality)
    if names:
        return (
            f"held-out {said:.4f} {where}: {before} of {len(points)} designs lie on an earlier Pareto front"
        )
    bar = sorted(row.levels[level] for row in reached)[allowed - 1]
    return (
        f"held-out {said:.4f} {where}; the better {search.keep:.0%} reach {natural(bar, search.quality):.4f}"
    )


def audited(search: Search, fingerprint: str) -> bool:
    """Whether a stopped design is trained to the end all the same, to see how often rungs are wrong."""
    return random.Random(f"audit:{search.seed}:{fingerprint}").random() < search.audit

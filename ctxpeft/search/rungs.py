"""Successive halving of the search's own: who goes on from a rung, with one objective or several."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ctxpeft.search.measures import OF_THE_DESIGN
from ctxpeft.search.outcome import Row
from ctxpeft.search.pareto import Point, ahead
from ctxpeft.search.settings import Search


def stopped(search: Search, rows: Sequence[Row], level: int, rung: float, known: dict[str, float]) -> str:
    """Why a design stops at a rung; "" if it goes on.

    It goes on if fewer than `keep` of all designs so far stand before it: are smaller, or with several objectives, lie
    on an earlier Pareto front of the held-out objective and what is known before training. Optuna's own pruners refuse
    several objectives.

    Args:
        search: how many go on, and how many are let through before any is stopped.
        rows: the trials so far.
        level: which rung, from 0.
        rung: the held-out objective of this design there.
        known: what is known of it before training, by name.
    """
    if search.keep == 1:
        return ""
    reached = [row for row in rows if len(row.levels) > level and row.outcome in ("completed", "pruned")]
    if len(reached) < max(1, search.warmup):
        return ""
    names = [name for name in search.objectives if name in OF_THE_DESIGN]

    def point(value: float, measured: dict[str, float]) -> Point:
        return [value, *(measured[name] for name in names)]

    points = [point(row.levels[level], row.objectives) for row in reached]
    allowed = max(1, math.ceil(search.keep * len(points)))
    before = ahead(points, point(rung, known))
    if before < allowed:
        return ""
    where = "at the rung" if len(search.rungs) == 1 else f"at rung {level + 1}"
    if names:
        return (
            f"held-out {rung:.4f} {where}: {before} of {len(points)} designs lie on an earlier Pareto front"
        )
    bar = sorted(row.levels[level] for row in reached)[allowed - 1]
    return f"held-out {rung:.4f} {where}; the better {search.keep:.0%} reach {bar:.4f}"


def audited(search: Search, fingerprint: str) -> bool:
    """Whether a stopped design is trained to the end all the same, to see how often rungs are wrong."""
    return random.Random(f"audit:{search.seed}:{fingerprint}").random() < search.audit

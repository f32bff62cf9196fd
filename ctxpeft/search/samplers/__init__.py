"""Who proposes the next design: one seeded sampler a trial, a function of the study alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from ctxpeft.search.outcome import Row, rows_of
from ctxpeft.search.samplers.evolution import Evolution
from ctxpeft.search.samplers.process import Process
from ctxpeft.search.settings import Search
from ctxpeft.search.spacefile import Space
from ctxpeft.spec.guide import Facts

STALE = 3


def sampler(
    study: optuna.Study, space: Space, search: Search, worker: int, solve: bool, guide: Facts | None = None
) -> BaseSampler:
    """The sampler of the next trial; a random draw after some repetitions in a row.

    It is made anew for every trial, with a seed that depends on how far the study is, so that a search that was
    interrupted goes on as it would have.

    Args:
        study: what is known so far.
        space: what is searched, whose conditions the Gaussian process asks.
        search: which sampler, and when it stops drawing at random.
        worker: of several processes, so that they do not draw the same.
        solve: whether sizes are solved for a budget, and so are no dimensions.
        guide: what the construction guide is told; None without it.
    """
    rows = rows_of(study.get_trials(deepcopy=False))
    lived = sum(1 for row in rows if row.outcome not in ("running", "interrupted"))
    seed = random.Random(f"{search.seed}:{worker}:{lived}").getrandbits(31)
    if search.sampler == "random" or stale(rows):
        return RandomSampler(seed=seed)
    if search.sampler == "nsga2":
        return Evolution(max(2, search.startup), seed)
    if search.sampler == "gp":
        return Process(space.positions, solve, guide, search.startup, seed)
    return TPESampler(multivariate=True, group=True, n_startup_trials=search.startup, seed=seed)


def stale(rows: Sequence[Row]) -> bool:
    """Whether the last designs were all known or infeasible."""
    recent = [row.outcome for row in rows if not row.anchor and row.outcome != "running"][-STALE:]
    return len(recent) == STALE and set(recent) <= {"memoised", "infeasible"}

"""The loop of one worker: ask, train, tell, until enough designs have been tried."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from ctxpeft.search.bench import Laboratory
from ctxpeft.search.objective import Objective
from ctxpeft.search.outcome import Row, rows_of, tried
from ctxpeft.search.progress import Watch
from ctxpeft.search.samplers import sampler
from ctxpeft.search.settings import Search

PATIENCE = 100


def work(
    study: optuna.Study,
    laboratory: Laboratory,
    watch: Watch,
    owner: str,
    worker: int = 0,
    after: Callable[[list[Row]], None] = lambda rows: None,
) -> None:
    """Run trials until the job's number is reached, or nothing new has come for a long time."""
    search = laboratory.job.search
    laboratory.refer(study.user_attrs.get("references"))
    objective = Objective(laboratory, watch, owner)
    while wanted(study, search):
        solve = laboratory.target is not None
        study.sampler = sampler(study, laboratory.job.space, search, worker, solve, laboratory.guide)
        study.optimize(objective, n_trials=1)
        after(rows_of(study.get_trials(deepcopy=False)))


def wanted(study: optuna.Study, search: Search) -> bool:
    """Whether another trial should be asked for: anchors and interrupted trials first, then new designs."""
    trials = study.get_trials(deepcopy=False)
    if any(t.state == TrialState.WAITING for t in trials):
        return True
    running = sum(1 for t in trials if t.state == TrialState.RUNNING and "anchor" not in t.user_attrs)
    rows = rows_of(trials)
    return len(tried(rows)) + running < search.trials and not exhausted(rows)


def exhausted(rows: list[Row]) -> bool:
    """Whether the last designs were all infeasible or known: the space, or its feasible part, is used up."""
    last = [row for row in rows if not row.anchor and row.outcome != "running"][-PATIENCE:]
    return len(last) == PATIENCE and all(row.outcome in ("infeasible", "memoised") for row in last)

"""The loop of one worker: ask, train, tell, until enough designs have been tried, by it and by others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from ctxpeft.search.alive import Lost
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.kept import kept
from ctxpeft.search.objective import Objective
from ctxpeft.search.outcome import Row, rows_of, tried
from ctxpeft.search.progress import Watch
from ctxpeft.search.samplers import sampler
from ctxpeft.search.settings import Search
from ctxpeft.search.steady import remembered

PATIENCE = 100
POLL_S = 1.0


def work(
    study: optuna.Study,
    laboratory: Laboratory,
    watch: Watch,
    owner: str,
    worker: int = 0,
    after: Callable[[list[Row]], None] = lambda rows: None,
) -> None:
    """Run trials until the job's number is reached, or nothing new has come for a long time.

    Then wait for the trials of other workers, and take over those whose worker died: the study is complete on return.
    Raises CtxpeftError where another command discards the study.
    """
    search = laboratory.job.search
    laboratory.refer(study.user_attrs.get("references"))
    objective = Objective(laboratory, watch, owner)
    with kept(study) as check, remembered() as obey:
        while wanted(study.get_trials(deepcopy=False), search) or left_by_others(study, search, watch, after):
            obey()
            check()
            solve = laboratory.target is not None
            study.sampler = sampler(study, laboratory.job.space, search, worker, solve, laboratory.guide)
            study.optimize(objective, n_trials=1)
            after(rows_of(study.get_trials(deepcopy=False)))
        obey()


def wanted(trials: Sequence[FrozenTrial], search: Search) -> bool:
    """Whether another trial should be asked for: anchors and interrupted trials first, then new designs."""
    if any(t.state == TrialState.WAITING for t in trials):
        return True
    running = sum(1 for t in trials if t.state == TrialState.RUNNING and "anchor" not in t.user_attrs)
    rows = rows_of(trials)
    return len(tried(rows)) + running < search.trials and not exhausted(rows)


def left_by_others(
    study: optuna.Study, search: Search, watch: Watch, after: Callable[[list[Row]], None]
) -> bool:
    """Wait until the trials of others have ended; whether they left something to do."""
    lost, began = Lost(study), None
    while True:
        trials = study.get_trials(deepcopy=False)
        after(rows_of(trials))
        if wanted(trials, search):
            return True
        began = len(trials) if began is None else began
        names = [_name(trial) for trial in unfinished(trials, search, began)]
        if not names:
            return False
        watch.waiting(
            f"waiting for {', '.join(names)} of {'other workers' if names[1:] else 'another worker'}"
        )
        time.sleep(POLL_S)
        lost.queue_again()


def unfinished(trials: Sequence[FrozenTrial], search: Search, began: int) -> list[FrozenTrial]:
    """The running trials that the study is not complete without.

    A worker that was asked for more designs goes on: of its trials only those count that ran when this worker had
    nothing more to do, which was at `began` trials.
    """
    rows = rows_of(trials)
    missing = len(tried(rows)) < search.trials and not exhausted(rows)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return [t for t in running if missing or t.number < began or "anchor" in t.user_attrs]


def _name(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("anchor") or f"trial {trial.number}")


def exhausted(rows: list[Row]) -> bool:
    """Whether the last designs were all infeasible or known: the space, or its feasible part, is used up."""
    last = [row for row in rows if not row.anchor and row.outcome != "running"][-PATIENCE:]
    return len(last) == PATIENCE and all(row.outcome in ("infeasible", "memoised") for row in last)

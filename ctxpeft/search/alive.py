"""Whether a running trial has a worker that lives, told by its heartbeat; one that has none is tried again."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session

from ctxpeft.search.patience import patiently


def grace_s(study: optuna.Study) -> float:
    """Seconds after its last heartbeat when a trial is taken for lost, by Optuna too."""
    return 2.0 * float(study._storage.get_heartbeat_interval())


def worked_on(study: optuna.Study, mine: Collection[str | None]) -> list[FrozenTrial]:
    """The running trials of other owners whose heartbeat goes on, or that began too lately to have one.

    mine: the owners whose trials are known to have no worker.
    """
    beating = _heard(study) - set(study._storage._get_stale_trial_ids(study._study_id))
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if trial.user_attrs.get("owner") not in mine
        and (trial._trial_id in beating or began_lately(trial, grace_s(study)))
    ]


def began_lately(trial: FrozenTrial, seconds: float) -> bool:
    """Whether a trial began within so many seconds, by the clock of this machine."""
    began = trial.datetime_start
    return began is not None and (datetime.now() - began).total_seconds() <= seconds


class Lost:
    """Finds the trials that were lost while others are waited for.

    Optuna knows those whose heartbeat stopped. One that was cut off before its first is known by having none for the
    grace, on this process's own clock, since clocks of machines differ.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._seen: dict[int, float] = {}

    def queue_again(self) -> None:
        """Fail what was lost, and queue it again as Optuna does."""
        optuna.storages.fail_stale_trials(self.study)
        now, grace = time.monotonic(), grace_s(self.study)
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        late = [t for t in running if now - self._seen.setdefault(t.number, now) > grace]
        heard = _heard(self.study) if late else set()
        for trial in late:
            if trial._trial_id not in heard:
                self._fail(trial)

    def _fail(self, trial: FrozenTrial) -> None:
        storage = self.study._storage
        try:
            failed = storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:  # another worker was first
            return
        again = storage.get_heartbeat_stale_trial_callback()
        if failed and again is not None:
            again(self.study, storage.get_trial(trial._trial_id))


def _heard(study: optuna.Study) -> set[int]:
    """The ids of running trials that had a heartbeat at some time."""
    backend = getattr(study._storage, "_backend", study._storage)
    query = (
        select(TrialHeartbeatModel.trial_id)
        .join(TrialModel, TrialModel.trial_id == TrialHeartbeatModel.trial_id)
        .where(TrialModel.study_id == study._study_id, TrialModel.state == TrialState.RUNNING)
    )

    def read() -> set[int]:
        with Session(backend.engine) as session:
            return {int(number) for number in session.scalars(query)}

    heard: set[int] = patiently(read)
    return heard

"""The storage keeps its promise to several workers: a queued trial is taken once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from ctxpeft.search import storage
from ctxpeft.search.storage import load_study, open_study, recover

QUEUED, WORKERS = 40, 4


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_queued_trial_is_taken_by_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_study(url, "queue", {}, [f"anchor-{i}" for i in range(QUEUED)])

    def take(_: int) -> list[int]:
        study = load_study(url, "queue")  # an engine of its own, as a process has
        return [study.ask().number for _ in range(QUEUED // WORKERS)]

    with ThreadPoolExecutor(WORKERS) as pool:
        taken = [number for numbers in pool.map(take, range(WORKERS)) for number in numbers]
    assert sorted(taken) == list(range(QUEUED))


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_what_the_heartbeat_queued_again_is_not_queued_twice(tmp_path: Path) -> None:
    """A trial that was lost, tried again and lost again is queued by Optuna; its worker leaves it at that."""
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "lost", {}, ["anchor"])
    again = RetryHeartbeatStaleTrialCallback(max_retry=3)
    for number in range(2):
        trial = study.ask()
        trial.set_user_attr("owner", "me")
        study.tell(trial, state=TrialState.FAIL)
        again(study, study.trials[number])
    assert recover(study, "me") == 0
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]
    trial = study.ask()
    trial.set_user_attr("owner", "me")
    assert recover(study, "me") == 1


def test_a_trial_cut_off_before_it_had_an_owner_is_the_folders_where_it_is_alone(tmp_path: Path) -> None:
    """A full disk may cut a trial off right there; left running, it would count as a design for ever."""
    study = open_study(f"sqlite:///{(tmp_path / 'study.db').as_posix()}", "s", {}, [])
    study.ask()
    assert recover(study, "me") == 0
    assert [t.state for t in study.trials] == [TrialState.RUNNING]
    assert recover(study, "me", alone=True) == 1
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_in_a_shared_storage_a_trial_without_an_owner_is_recovered_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died between making it and marking it; before the grace it may still be about to."""
    study = open_study(f"sqlite:///{(tmp_path / 'study.db').as_posix()}", "s", {}, ["anchor"])
    study.ask()
    marked = study.ask()
    marked.set_user_attr("owner", "another")
    assert recover(study, "me") == 0
    monkeypatch.setattr(storage, "GRACE_S", -1.0)
    assert recover(study, "me") == 1
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert study.trials[2].user_attrs == {"anchor": "anchor", "retry_of": 0}

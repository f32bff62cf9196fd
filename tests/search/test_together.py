"""Several workers on one storage: nobody ends before the study is complete, and nobody discards what others do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ctxpeft.errors import CtxpeftError
from ctxpeft.search import loop, storage
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.kept import kept
from ctxpeft.search.loop import left_by_others, unfinished
from ctxpeft.search.outcome import rows_of, tried
from ctxpeft.search.progress import Watch
from ctxpeft.search.run import Found, search
from ctxpeft.search.settings import Search
from ctxpeft.search.storage import discard, load_study, open_storage, open_study
from tests.search.conftest import TINY_SPACE

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


def shared(job: Job, folder: Path, **settings: Any) -> Job:
    """The job on a storage between folders."""
    url = f"sqlite:///{(folder / 'shared.db').as_posix()}"
    space = with_settings(job.space, {"search": {"finalists": 0, **settings}})
    return replace(job, space=space, storage=url, out=folder / "mine")


def begin_elsewhere(study: optuna.Study, beat: bool = True) -> optuna.Trial:
    """A trial as a worker of another folder begins it."""
    trial = study.ask()
    trial.set_user_attr("owner", "another")
    if beat:
        study._storage.record_heartbeat(trial._trial_id)
    return trial


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat a second, so that a trial is lost after two."""
    monkeypatch.setattr(storage, "HEARTBEAT_S", 1)
    monkeypatch.setattr(loop, "POLL_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_what_a_dead_worker_left_last_is_trained_by_the_one_that_waits(
    tiny_job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two anchors and the only design; the second anchor's worker died before its first heartbeat."""
    job = shared(tiny_job, tmp_path, trials=1)
    anchors = job.space.file.anchors
    study = open_study(str(job.storage), job.study, job.open().describe(), anchors)
    for beat in (True, False, True):
        begin_elsewhere(study, beat)
    rows = search(job).rows
    assert [row.outcome for row in rows[:3]] == ["interrupted"] * 3
    assert sorted(row.anchor for row in rows if row.outcome == "completed" and row.anchor) == sorted(anchors)
    assert len(tried(rows)) == 1
    assert (
        "waiting for prefix-tuning-plus, prefix-tuning, trial 2 of other workers" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("outcome", "left"), [("completed", False), ("infeasible", True)])
def test_a_living_worker_is_waited_for(
    outcome: str, left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes; a design that does not count leaves one to do."""
    study = open_study(f"sqlite:///{(tmp_path / 'study.db').as_posix()}", "s", {}, [])
    trial = begin_elsewhere(study)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            trial.set_user_attr("outcome", outcome)
            study.tell(trial, 1.0)

    monkeypatch.setattr(loop.time, "sleep", sleep)
    assert left_by_others(study, Search(trials=1), Watch(), lambda rows: None) is left
    assert len(pauses) == 3


def test_a_worker_that_was_asked_for_more_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{(tmp_path / 'study.db').as_posix()}", "s", {}, [])
    trial = begin_elsewhere(study)
    trial.set_user_attr("outcome", "completed")
    study.tell(trial, 1.0)
    for _ in range(2):
        begin_elsewhere(study)
    trials = study.get_trials()
    assert [t.number for t in unfinished(trials, Search(trials=1), began=2)] == [1]
    assert [t.number for t in unfinished(trials, Search(trials=2), began=2)] == [1, 2]


def test_ctrl_c_ends_a_worker_that_waits(tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path) -> None:
    space, url = tmp_path / "tiny.yaml", f"sqlite:///{(tmp_path / 'shared.db').as_posix()}"
    space.write_text(TINY_SPACE, encoding="utf-8")
    command = [sys.executable, "-m", "ctxpeft.cli", "search", str(space), "--storage", url]
    command += ["--model", str(tiny_model), "--data", tiny_task["train"], "--test", tiny_task["test"]]
    command += ["--out", str(tmp_path / "mine"), "search.finalists=0", "data.template={text} Label:"]
    subprocess.run([*command, "--trials", "0"], check=True, capture_output=True)
    begin_elsewhere(load_study(url, None))
    process = subprocess.Popen(
        [*command, "--trials", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if "waiting for trial 2 of another worker" in line:
            break
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    told += process.stderr.read()
    assert process.wait(timeout=60) == 130, told
    assert time.monotonic() - began < 20
    assert "error: interrupted; what was finished is saved" in told


def test_finals_of_the_same_finalists_are_read(
    found: Found, tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine, whose folder holds no run of them."""
    shutil.copy(tiny_job.out / "study.db", tmp_path / "shared.db")
    job = replace(
        tiny_job, storage=f"sqlite:///{(tmp_path / 'shared.db').as_posix()}", out=tmp_path / "second"
    )
    trained: list[int] = []
    real = Laboratory.train

    def train(
        self: Laboratory, variant: Any, rate: Any, steps: int, seed: int, *more: Any, **how: Any
    ) -> Any:
        trained.append(seed)
        return real(self, variant, rate, steps, seed, *more, **how)

    monkeypatch.setattr(Laboratory, "train", train)
    assert search(job).finals == found.finals
    assert (job.out / "finals.json").read_bytes() == (found.out / "finals.json").read_bytes()
    assert not trained
    job = replace(job, space=with_settings(job.space, {"search": {"seeds": 1}}))
    finals = search(job).finals
    assert finals is not None
    assert finals.seeds == [1]
    assert trained == [1, 1, 1]


def test_fresh_is_refused_while_another_worker_trains(tiny_job: Job, tmp_path: Path) -> None:
    job = shared(tiny_job, tmp_path, trials=0)
    found = search(job)
    study = load_study(job.url, job.study)
    theirs = begin_elsewhere(study)
    with pytest.raises(CtxpeftError, match=r"'tiny' is being worked on \(trial 2\): stop that worker before"):
        search(job, fresh=True)
    assert rows_of(load_study(job.url, job.study).trials)[:2] == found.rows
    assert (job.out / "report.html").is_file()
    study.tell(theirs, state=TrialState.FAIL)
    assert len(search(job, fresh=True).rows) == 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dead", ["one's own", "stopped beating", "never beat"])
def test_fresh_discards_what_nobody_works_on(dead: str, tmp_path: Path) -> None:
    url = f"sqlite:///{(tmp_path / 'study.db').as_posix()}"
    study = open_study(url, "s", {}, [])
    begin_elsewhere(study, beat=dead != "never beat")
    mine = ("another",) if dead == "one's own" else ("me",)
    if dead != "one's own":
        with pytest.raises(CtxpeftError, match="wait 2 seconds"):
            discard(tmp_path, url, "s", mine)
        time.sleep(4)  # the database's clock has whole seconds
    discard(tmp_path, url, "s", mine)
    assert not (tmp_path / "study.db").exists()


def gone(url: str, name: str) -> None:
    optuna.delete_study(study_name=name, storage=open_storage(url))


def gone_and_made_again(url: str, name: str) -> None:
    gone(url, name)
    open_study(url, name, {}, ["prefix-tuning"])


@pytest.mark.parametrize("discarded", [gone, gone_and_made_again])
def test_a_study_that_vanishes_between_trials_is_one_sentence_and_the_next_one_is_left_alone(
    discarded: Callable[[str, str], None], tmp_path: Path
) -> None:
    url = f"sqlite:///{(tmp_path / 'study.db').as_posix()}"
    study = open_study(url, "s", {}, [])
    with kept(study) as check:
        check()
        discarded(url, "s")
        with pytest.raises(CtxpeftError, match="'s' was discarded by another command while this one worked"):
            check()

    def failing(study: optuna.Study) -> None:
        with kept(study):
            discarded(url, "s")
            raise KeyError("what Optuna makes of it")

    with pytest.raises(CtxpeftError, match="'s' was discarded"):
        failing(open_study(url, "s", {}, []))


def test_other_errors_are_told_as_they_are(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{(tmp_path / 'study.db').as_posix()}", "s", {}, [])
    with pytest.raises(KeyError, match="mine"), kept(study):
        raise KeyError("mine")


def test_a_study_that_vanishes_amid_a_trial_is_one_sentence(
    tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shared(tiny_job, tmp_path, trials=1)
    real = Laboratory.train

    def train(self: Laboratory, *args: Any, **kwargs: Any) -> Any:
        result = real(self, *args, **kwargs)
        gone(job.url, job.study)
        return result

    monkeypatch.setattr(Laboratory, "train", train)
    with pytest.raises(
        CtxpeftError, match="'tiny' was discarded by another command while this one worked on it"
    ):
        search(job)

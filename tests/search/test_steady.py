"""An interrupt amid an operation of a storage in a file is raised behind it."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from ctxpeft.search import loop
from ctxpeft.search.job import Job
from ctxpeft.search.run import search
from ctxpeft.search.steady import SteadyStorage, remembered, whole


def test_what_was_begun_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = SteadyStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    commit = RDBStorage._set_trial_attr_without_commit

    def interrupted(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGINT)
        commit(*args, **kwargs)

    monkeypatch.setattr(RDBStorage, "_set_trial_attr_without_commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trial.set_user_attr("key", 3)
    assert study.get_trials()[0].user_attrs == {"key": 3}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait() -> None:
    def twice() -> None:
        with whole():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second interrupt was kept back")

    with pytest.raises(KeyboardInterrupt):
        twice()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_obeyed() -> None:
    """Amid a destructor it would be printed as ignored, and forgotten."""

    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    class Storing:
        def __del__(self) -> None:
            with whole():
                signal.raise_signal(signal.SIGINT)

    with remembered() as obey:
        obey()
        dropped = Dropped()
        del dropped
        with whole():  # what is stored meanwhile is stored
            pass
        with pytest.raises(KeyboardInterrupt):
            obey()
    with remembered() as obey:  # behind what is stored the next is remembered too
        with whole():
            pass
        dropped = Dropped()
        del dropped
        with pytest.raises(KeyboardInterrupt):
            obey()
    with remembered() as obey:  # and so is one that is dropped behind what a destructor stores
        storing = Storing()
        del storing
        with pytest.raises(KeyboardInterrupt):
            obey()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with remembered() as obey:  # and it is of its own block alone
        obey()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), whole():
            signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("amid", ["rows_of", "left_by_others"])
def test_a_search_obeys_an_interrupt_that_python_drops(
    amid: str, tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends behind the design that is trained, be that the last one, and goes on where it was."""

    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    called: list[str] = []
    real = getattr(loop, amid)

    def dropping(*words: Any) -> Any:
        called.append(amid)
        Dropped()
        return real(*words)

    job = dataclasses.replace(tiny_job, out=tmp_path / "study")
    monkeypatch.setattr(loop, amid, dropping)
    with pytest.raises(KeyboardInterrupt):
        search(job)
    assert called == [amid]
    monkeypatch.undo()
    assert len(search(job).rows) > 1


def test_a_heartbeat_that_fails_is_quiet(tmp_path: Path) -> None:
    """It beats in a thread of its own, whose error would end in a trace on the terminal."""
    storage = SteadyStorage(f"sqlite:///{tmp_path / 'study.db'}", heartbeat_interval=1)
    trial = optuna.create_study(storage=storage).ask()
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE trial_heartbeats")
    with pytest.raises(StorageInternalError):
        RDBStorage.record_heartbeat(storage, trial._trial_id)
    storage.record_heartbeat(trial._trial_id)

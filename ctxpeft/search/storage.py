"""The study on disk: opened or made, compared with what is asked now, cleaned of what a killed process left."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import ArgumentError

from ctxpeft.errors import CtxpeftError, DiskError, SpecError, did_you_mean
from ctxpeft.extras import require
from ctxpeft.files import write_text
from ctxpeft.folders import SEARCH, only_for
from ctxpeft.search.alive import began_lately, grace_s, worked_on
from ctxpeft.search.archive import Archive, put_back
from ctxpeft.search.kept import mark
from ctxpeft.search.patience import PatientStorage
from ctxpeft.search.steady import SteadyStorage

HEARTBEAT_S = 30
GRACE_S = 2 * HEARTBEAT_S  # Optuna's, after which a trial whose heartbeat stopped is taken for lost
LOCK = ".search.lock"
OURS = ("report.html", "best.yaml", "trials.csv", "study.json", "finals.json", "study.db", "search.json")
FOLDERS = ("runs", "measures", "front")


def open_storage(url: str) -> RDBStorage:
    """An RDBStorage whose trials carry a heartbeat and are queued again when it stops.

    A database server may go away and come back; SQLite's file may not. Raises CtxpeftError, without the password of
    the URL, if the database cannot be opened.
    """
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    file = url.startswith("sqlite")
    if url.startswith("postgresql:"):
        require("psycopg2", "postgres", "a study on PostgreSQL")
    try:
        storage: RDBStorage = (SteadyStorage if file else PatientStorage)(
            url.replace("postgresql:", "postgresql+psycopg2:", 1),
            engine_kwargs={"connect_args": {"timeout": 60}} if file else {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_S,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
        )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CtxpeftError(f"storage {without_password(url)} cannot be opened: {reason}") from None
    if storage.engine.dialect.name == "sqlite":
        event.listen(storage.engine, "begin", _write_lock)
    return storage


def without_password(url: str) -> str:
    """A storage URL as messages and reports may show it."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url.rpartition("@")[2]


def _write_lock(connection: Connection) -> None:
    """Take SQLite's lock before reading: it has no SELECT FOR UPDATE, and two workers would take one queued trial."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def load_study(url: str, name: str | None) -> optuna.Study:
    """A study that exists; the only one if `name` is None. Raises CtxpeftError naming what the storage holds."""
    _check_file(url)
    storage = open_storage(url)
    names = optuna.get_all_study_names(storage)
    if not names:
        raise CtxpeftError(f"{without_password(url)} holds no study: nothing was searched there yet")
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        held = ", ".join(sorted(names))
        raise CtxpeftError(f"{without_password(url)} holds {len(names)} studies; give --study NAME ({held})")
    if name not in names:
        raise CtxpeftError(f"{without_password(url)} holds no study '{name}'{did_you_mean(name, names)}")
    return optuna.load_study(study_name=name, storage=storage)


def _check_file(url: str) -> None:
    """Refuse an SQLite file that is not there or is something else, since opening it would make a study of it."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return
    path = Path(str(parsed.database))
    if not path.is_file():
        raise CtxpeftError(f"no database at {path}: expected the one that ctxpeft search wrote")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
        ) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.DatabaseError as error:
        raise CtxpeftError(f"{path} cannot be read as a database: {error}") from None
    if ("studies",) not in tables:
        raise CtxpeftError(
            f"{path} is a database of something else: expected the one that ctxpeft search wrote"
        )


def open_study(
    url: str,
    name: str,
    described: Mapping[str, Any],
    anchors: list[str],
    archive: Archive | None = None,
    objectives: int = 1,
) -> optuna.Study:
    """The study to go on with, or a new one whose first trials are the anchors, or those of an archive.

    Of several objectives each is minimised.

    Raises SpecError, before anything is written, where the study or the archive was made for another space, model or
    task, naming the first difference; or where the study holds trials that are not the archive's.
    """
    described = json.loads(json.dumps(described))
    if archive is not None:
        check_archive(archive, described, objectives)
    storage = open_storage(url)
    try:
        study = optuna.create_study(study_name=name, storage=storage, directions=["minimize"] * objectives)
        mark(study)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
    written = study.user_attrs.get("described")
    found = "" if written is None else difference(written, described)
    if not found and len(study.directions) != objectives:
        found = f"objectives = {len(study.directions)}, and is now asked for {objectives}"
    if found:
        raise SpecError(
            f"the study '{name}' was made with {found}: take another --out, or discard it with --fresh"
        )
    if archive is not None:
        put_back(study, archive)
    if written is None:
        study.set_user_attr("described", described)
    known = {t.user_attrs.get("anchor") for t in study.get_trials(deepcopy=False)}
    for anchor in anchors:
        if anchor not in known:
            study.enqueue_trial({}, user_attrs={"anchor": anchor})
    return study


def only_continued(archive: Archive) -> None:
    """Raises SpecError for an archive of the first format."""
    if archive.first_format:
        raise SpecError(
            "that study was written before studies could be continued: ctxpeft report reads it, --from does not"
        )


def check_archive(archive: Archive, described: Mapping[str, Any], objectives: int) -> None:
    """Refuse an archive that this search cannot go on with.

    Raises SpecError where it is of the first format, or of another space, model or task, naming the first difference.
    """
    only_continued(archive)
    found = difference(archive.described, json.loads(json.dumps(described)))
    if found:
        raise SpecError(
            f"the study of that file was made with {found}: --from needs the same space, settings, model and data"
        )
    counts = {len(trial.values) for trial in archive.trials if trial.values}
    if counts - {objectives}:
        raise SpecError(
            f"the trials of that file have {min(counts - {objectives})} objectives, and the search has {objectives}"
        )


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first key whose values differ, as `training.steps = 60, and is now asked for 120`; "" if none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            found = difference(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return next(
            filter(
                None,
                (difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))),
            ),
            "",
        )
    if old == new:
        return ""
    if path == "model" or path.split(".")[0] == "task":
        return "another " + path.replace(".", " ", 1)
    return f"{path} = {_short(old)}, and is now asked for {_short(new)}"


def recover(study: optuna.Study, owner: str, alone: bool = False) -> int:
    """Queue again what this folder's former process left unfinished; returns how many.

    Safe because the caller holds the folder's lock: nobody else runs trials of this owner. So is what has had no owner
    for longer than the heartbeat's grace, whoever began it: a living worker marks its trial at once.

    Args:
        study: the study.
        owner: the folder's own id.
        alone: whether the storage is the folder's own, so that a trial that was cut off before it had an owner (a full
            disk) is this folder's too.
    """
    mine = (owner, None) if alone else (owner,)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("owner") in mine or _orphaned(trial):
            study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    again = {t.user_attrs.get("retry_of") for t in trials}
    again |= {number for t in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(t)}
    queued = 0
    for trial in trials:
        lost = trial.state == TrialState.FAIL and "outcome" not in trial.user_attrs
        if lost and trial.number not in again:
            kept = {"anchor": trial.user_attrs["anchor"]} if "anchor" in trial.user_attrs else {}
            study.enqueue_trial(trial.params, user_attrs={**kept, "retry_of": trial.number})
            queued += 1
    return queued


def _orphaned(trial: FrozenTrial) -> bool:
    """Whether a running trial still has no owner after the heartbeat's grace: its worker, which marks it at once, died
    before that, and before the first heartbeat, so that Optuna does not miss it either.
    """
    if trial.user_attrs.get("owner") is not None or trial.datetime_start is None:
        return False
    return not began_lately(trial, GRACE_S)


@contextlib.contextmanager
def owned(out: Path) -> Iterator[str]:
    """The folder, kept for this process; gives the folder's own id. Where a search is refused before it left anything
    there, it is as it was.

    Raises CtxpeftError if another process has it, or if it holds a run or a comparison.
    """
    marker, lock = out / "search.json", out / LOCK
    only_for(SEARCH, out)
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # a platform without advisory locks
            pass
        except OSError:
            raise CtxpeftError(
                f"{out} is in use by another search; wait for it, or take another --out"
            ) from None
        new = not marker.is_file()
        if new:
            write_text(marker, json.dumps({"owner": uuid.uuid4().hex}) + "\n")
        try:
            yield str(json.loads(marker.read_text(encoding="utf-8"))["owner"])
        except DiskError:
            raise
        except CtxpeftError:
            if new and {path.name for path in out.iterdir()} <= {marker.name, lock.name}:
                _as_it_was((marker, lock), missing)
            raise


def _as_it_was(files: Collection[Path], folders: Collection[Path]) -> None:
    with contextlib.suppress(OSError):  # a platform that keeps what is open, a folder that others use by now
        for file in files:
            file.unlink()
        for folder in folders:
            folder.rmdir()


def discard(out: Path, url: str, name: str, mine: Collection[str | None] = ()) -> None:
    """Remove the study and everything a search wrote into its folder, and nothing else.

    mine: the owners whose running trials have no worker any more.

    Raises CtxpeftError, before anything is removed, while a worker of another owner trains one of its designs.
    """
    if not url.startswith("sqlite") or Path(url.removeprefix("sqlite:///")).is_file():
        storage = open_storage(url)
        if name in optuna.get_all_study_names(storage):
            _only_without_workers(optuna.load_study(study_name=name, storage=storage), mine)
            optuna.delete_study(study_name=name, storage=storage)
        storage.remove_session()
    owns_database = url == f"sqlite:///{(out / 'study.db').as_posix()}"
    for file in OURS:
        if file not in ("search.json", "study.db") or (file == "study.db" and owns_database):
            (out / file).unlink(missing_ok=True)
    for folder in FOLDERS:
        shutil.rmtree(out / folder, ignore_errors=True)


def _only_without_workers(study: optuna.Study, mine: Collection[str | None]) -> None:
    busy = worked_on(study, mine)
    if busy:
        raise CtxpeftError(
            f"the study '{study.study_name}' is being worked on (trial {busy[0].number}): stop that worker before "
            f"--fresh, or, if it was killed, wait {grace_s(study):.0f} seconds"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."

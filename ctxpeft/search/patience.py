"""A storage that waits for its database: a restart in the middle of a study costs time and nothing else."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

PATIENCE_S = 300.0
LONGEST_PAUSE_S = 5.0
OPERATIONS = (
    "create_new_study",
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "create_new_trial",
    "_create_new_trial",
    "set_trial_param",
    "get_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
    "get_all_trials",
    "_get_trials",
    "get_best_trial",
    "record_heartbeat",
    "_get_stale_trial_ids",
)


def quiet(beat: Callable[..., None]) -> Callable[..., None]:
    """A heartbeat that may fail: it beats in a thread of its own, and the trial itself finds a full disk or a lost
    database."""

    @functools.wraps(beat)
    def beaten(self: RDBStorage, trial_id: int) -> None:
        with contextlib.suppress(DBAPIError, StorageInternalError):
            beat(self, trial_id)

    return beaten


class PatientStorage(RDBStorage):  # type: ignore[misc]
    """RDBStorage whose operations are repeated, for up to five minutes, while the database cannot be reached.

    A lost connection may hide that an operation was done. Finishing a trial a second time is then no error; a trial
    created twice is one without a heartbeat, which nobody waits for.
    """


def unreachable(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that the database went away; errors in the data do not."""
    seen: BaseException | None = error
    while seen is not None:
        lost = isinstance(seen, DBAPIError) and seen.connection_invalidated
        if lost or isinstance(seen, OperationalError | InterfaceError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_inside = threading.local()


def _patient(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    def repeated(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        if getattr(_inside, "operation", False):
            return operation(self, *args, **kwargs)
        _inside.operation = True
        try:
            return patiently(lambda: operation(self, *args, **kwargs), name)
        finally:
            _inside.operation = False

    repeated.__name__ = name
    repeated.__doc__ = operation.__doc__
    return repeated


def patiently(once: Callable[[], Any], name: str = "") -> Any:
    """What `once` returns, which is repeated while the database cannot be reached. name: the storage's operation."""
    until, pause, lost = time.monotonic() + PATIENCE_S, 0.1, False
    while True:
        try:
            return once()
        except UpdateFinishedTrialError:
            if lost and name == "set_trial_state_values":
                return True
            raise
        except (DBAPIError, StorageInternalError) as error:
            if not unreachable(error) or time.monotonic() > until:
                raise
            lost = True
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


for _name in OPERATIONS:
    setattr(PatientStorage, _name, _patient(_name, getattr(RDBStorage, _name)))
PatientStorage.record_heartbeat = quiet(PatientStorage.record_heartbeat)

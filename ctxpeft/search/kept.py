"""A study that another command discards while this one works on it: one sentence, and the new study is left alone."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator

import optuna

from ctxpeft.errors import CtxpeftError

KEY = "made"


def mark(study: optuna.Study) -> None:
    """Make a new study known from a later one, which may have its name and, in SQLite, its number."""
    study.set_user_attr(KEY, uuid.uuid4().hex)


def mark_of(study: optuna.Study) -> str | None:
    """The mark; "" where the study was made before there were any, None where it is gone."""
    try:
        if study.study_name in optuna.get_all_study_names(study._storage):
            return str(study.user_attrs.get(KEY, ""))
    except KeyError:
        pass
    return None


@contextlib.contextmanager
def kept(study: optuna.Study) -> Iterator[Callable[[], None]]:
    """Inside the block, an error that comes of the study being gone is one sentence; gives a function that checks.

    Raises CtxpeftError where the study was discarded.
    """
    began = mark_of(study) or ""

    def check() -> None:
        nonlocal began
        now = mark_of(study)
        if now is None or (began and now != began):
            raise CtxpeftError(
                f"the study '{study.study_name}' was discarded by another command while this one worked on it; the "
                "same command without --fresh takes part in what is there now"
            ) from None
        began = now

    try:
        yield check
    except Exception:
        check()
        raise

"""The errors a user can cause. Each carries one sentence; the command line prints it and exits 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CtxpeftError(Exception):
    """A user's mistake, told in one sentence: what is wrong, where, what was expected, the nearest valid name."""


class SpecError(CtxpeftError):
    """A variant, a space or a task file that does not say something the algebra allows."""


class DataError(CtxpeftError):
    """A data file that cannot be read as the task expects."""


class HostError(CtxpeftError):
    """A model that cannot host the variant, or a handle used in a way its model does not allow."""


class AdapterError(CtxpeftError):
    """A saved adapter that is truncated, foreign, or does not fit the model."""


class LawError(CtxpeftError):
    """A law that is violated. The command line exits 1 on it."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest valid name, or the list of valid names when none is near."""
    choices = sorted(set(valid))
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; valid names: {', '.join(choices)}" if choices else ""

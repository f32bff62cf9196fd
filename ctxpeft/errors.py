"""The errors a user can cause. Each carries one sentence; the command line prints it and exits 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 2000  # characters of a sentence
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def one_line(text: str) -> str:
    """`text` with everything that could break a line or steer a terminal written as an escape."""
    return _UNPRINTABLE.sub(lambda m: m.group().encode("unicode_escape").decode("ascii"), text)


class CtxpeftError(Exception):
    """A user's mistake, told in one sentence: what is wrong, where, what was expected, the nearest valid name.

    Names and values of strangers may stand in it, so it is kept to one printable line of bounded length.
    """

    def __init__(self, sentence: str = "") -> None:
        line = one_line(sentence)
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]} ...")


class SpecError(CtxpeftError):
    """A variant, a space or a task file that does not say something the algebra allows."""


class DataError(CtxpeftError):
    """A data file that cannot be read as the task expects."""


class HostError(CtxpeftError):
    """A model that cannot host the variant, or a handle used in a way its model does not allow."""


class AdapterError(CtxpeftError):
    """A saved adapter that is truncated, foreign, or does not fit the model."""


class DiskError(CtxpeftError):
    """A disk that is full, or cannot be written: no fault of the variant that was being trained."""


class LawError(CtxpeftError):
    """A law that is violated. The command line exits 1 on it."""


def did_you_mean(name: str, valid: Iterable[str], lister: str = "") -> str:
    """`"; did you mean 'x'?"` for the nearest valid name; when none is near the valid names, or the command that lists
    them."""
    choices = sorted(set(valid))
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    if lister:
        return f"; '{lister}' lists what there is"
    return f"; valid names: {', '.join(choices)}" if choices else ""

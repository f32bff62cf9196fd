"""The errors a user can cause. Each carries one sentence; the command line prints it and exits 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

LONGEST = 2000  # characters of a sentence
MOST = 20  # mistakes that one error tells
T = TypeVar("T")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def one_line(text: str) -> str:
    """`text` with everything that could break a line or steer a terminal written as an escape."""
    return _UNPRINTABLE.sub(lambda m: m.group().encode("unicode_escape").decode("ascii"), text)


class CtxpeftError(Exception):
    """A user's mistake, told in one sentence: what is wrong, where, what was expected, the nearest valid name.

    Names and values of strangers may stand in it, so it is kept to one printable line of bounded length.

    Where a file makes several mistakes that can be told at once, the sentence is about the most specific one, and
    `mistakes` holds a sentence for each, in the order of the file, at most MOST; else it holds the one sentence.
    """

    def __init__(self, sentence: str = "", mistakes: Iterable[str] = ()) -> None:
        super().__init__(_bounded(sentence))
        told = tuple(dict.fromkeys(map(_bounded, mistakes))) or (str(self),)
        self.mistakes = told if len(told) <= MOST else (*told[: MOST - 1], "there are more mistakes")


def _bounded(sentence: str) -> str:
    line = one_line(sentence)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


class SpecError(CtxpeftError):
    """A variant, a space or a task file that does not say something the algebra allows."""


def gathered(builders: Iterable[Callable[[], T]]) -> list[T]:
    """What the builders return, all of them called.

    Raises SpecError if one of them does: the sentence of the first, the mistakes of all.
    """
    made: list[T] = []
    errors: list[SpecError] = []
    for build in builders:
        try:
            made.append(build())
        except SpecError as error:
            errors.append(error)
    if errors:
        raise SpecError(str(errors[0]), [told for error in errors for told in error.mistakes])
    return made


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

"""What pydantic reports, sorted into mistakes: the alternatives of a union that failed are one, not many."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from ctxpeft.spec.document import Path_

NOT_THIS_TYPE = (
    "literal_error",
    "int_type",
    "float_type",
    "bool_type",
    "string_type",
    "list_type",
    "dict_type",
    "model_type",
)


@dataclass(frozen=True)
class _Problem:
    """One report of pydantic: the path that is written in the file, and which alternatives of unions it was about."""

    details: ErrorDetails
    path: Path_
    ways: Mapping[Path_, Path_]

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """How specific it is."""
        kind = self.details["type"]
        return kind == "extra_forbidden", len(self.path), kind not in NOT_THIS_TYPE


def mistakes(problems: Sequence[ErrorDetails], data: Any, most: int) -> list[list[ErrorDetails]]:
    """The problems to tell, at most so many, the most specific first; several in one where every alternative of a union
    failed on the type.

    Left out is what another mistake explains: other alternatives of its union, and a key that is missing because it is
    misspelt.
    """
    found: list[list[ErrorDetails]] = []
    left = [_Problem(p, *_walk(p, data)) for p in problems]
    while left and len(found) < most:
        best = max(left, key=lambda p: p.rank)
        alike = [p for p in left if p.rank == best.rank and p.path == best.path]
        one = best.details["type"] not in NOT_THIS_TYPE
        found.append([best.details] if one else [p.details for p in alike])
        left = [p for p in left if not _explained(p, best)]
    return found


def written_path(problem: ErrorDetails, data: Any) -> Path_:
    """pydantic's location without the union tags that no file contains."""
    return _walk(problem, data)[0]


def misspelt(name: str, valid: str) -> bool:
    """Whether an unknown key is probably meant for a valid one that is missing."""
    return bool(difflib.get_close_matches(name, [valid], cutoff=0.6))


def _explained(problem: _Problem, told: _Problem) -> bool:
    """Whether a problem is the same mistake as one that is told."""
    here, there = problem.path, told.path
    shorter = min(len(here), len(there))
    if here[:shorter] == there[:shorter]:  # only alternatives fail both at a place and within it
        return True
    if any(told.ways.get(place, way) != way for place, way in problem.ways.items()):
        return True
    renamed = problem.details["type"] == "missing" and told.details["type"] == "extra_forbidden"
    return renamed and here[:-1] == there[:-1] and misspelt(str(there[-1]), str(here[-1]))


def _walk(problem: ErrorDetails, data: Any) -> tuple[Path_, dict[Path_, Path_]]:
    """The written path, and at each of its places the union tags that pydantic put there."""
    path: list[str | int] = []
    ways: dict[Path_, Path_] = {}
    location = problem["loc"]
    for index, part in enumerate(location):
        is_missing = problem["type"] == "missing" and index == len(location) - 1
        if _holds(data, part):
            data = data[part]
            path.append(part)
        elif isinstance(data, Mapping) and is_missing:
            path.append(part)
        else:
            place = tuple(path)
            ways[place] = (*ways.get(place, ()), part)
    return tuple(path), ways


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data

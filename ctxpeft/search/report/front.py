"""The Pareto front as pictures see it: the first objective against each other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctxpeft.search.measures import TITLE, Name
from ctxpeft.search.outcome import Row, front, ranking
from ctxpeft.search.pareto import ranks
from ctxpeft.search.report.scale import objectives_of


@dataclass(frozen=True)
class Plane:
    """Completed trials seen in two objectives: `points` are the other objective as it is, in the rows' order.

    front: numbers of the trials that nothing beats in all objectives. whole: whether these two are all there are.
    """

    name: Name
    rows: list[Row]
    points: list[float]
    front: list[int]
    whole: bool = True

    @property
    def title(self) -> str:
        """What its axis says."""
        return TITLE[self.name]


def planes_of(rows: Sequence[Row], about: dict[str, Any]) -> list[Plane]:
    """The study's first objective against each other one; against the parameters where it has but one."""
    names = objectives_of(about)
    done = ranking(rows)
    if len(names) == 1:
        sized = [row for row in done if row.parameters]
        sizes = [float(row.parameters or 0) for row in sized]
        found = ranks([(size, row.value or 0.0) for size, row in zip(sizes, sized, strict=True)])
        best = [row.number for row, rank in zip(sized, found, strict=True) if rank == 0]
        return [Plane("parameters", sized, sizes, best)] if sized else []
    best = [row.number for row in front(rows)]
    return [
        Plane(name, done, [row.objectives[name] for row in done], best, len(names) == 2)
        for name in names[1:]
        if done
    ]

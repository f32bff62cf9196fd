"""The Pareto front: trials that no other beats in one thing without losing in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctxpeft.search.outcome import Row, ranking
from ctxpeft.search.report.scale import objectives_of

TITLES = {
    "parameters": "trainable parameters",
    "latency": "time to decode, relative to the frozen model's",
    "forgetting": "rise of the loss on another text",
    "bytes": "bytes of the adapter",
    "metric": "held-out metric",
    "ood": "out-of-distribution metric",
    "loss": "held-out loss",
}


@dataclass(frozen=True)
class Plane:
    """Completed trials seen in two objectives: `points` are the other objective as it is, in the rows' order.

    front: numbers of the trials that nothing beats in all objectives. whole: whether these two are all there are.
    """

    name: str
    rows: list[Row]
    points: list[float]
    front: list[int]
    whole: bool = True

    @property
    def title(self) -> str:
        """What its axis says."""
        return TITLES.get(self.name, self.name)


def planes_of(rows: Sequence[Row], about: dict[str, Any]) -> list[Plane]:
    """The study's first objective against each other one; against the parameters where it has but one."""
    names = objectives_of(about)
    if len(names) == 1:
        sized = [row for row in ranking(rows) if row.parameters]
        sizes = [float(row.parameters or 0) for row in sized]
        best = front([(size, row.value or 0.0) for size, row in zip(sizes, sized, strict=True)])
        return [Plane("parameters", sized, sizes, [sized[i].number for i in best])] if sized else []
    done = [row for row in ranking(rows) if getattr(row, "costs", ())]
    numbers = [done[i].number for i in front([getattr(row, "costs") for row in done])]  # noqa: B009
    return [
        Plane(name, done, [getattr(row, "objectives")[name] for row in done], numbers, len(names) == 2)  # noqa: B009
        for name in names[1:]
        if done
    ]


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other is as good as everywhere and better somewhere; smaller is better.

    Of equal points all are kept. Ordered by the first coordinate.
    """

    def beaten(point: Sequence[float]) -> bool:
        return any(
            all(a <= b for a, b in zip(other, point, strict=True)) and list(other) != list(point)
            for other in points
        )

    kept = [index for index, point in enumerate(points) if not beaten(point)]
    return sorted(kept, key=lambda index: (points[index][0], index))

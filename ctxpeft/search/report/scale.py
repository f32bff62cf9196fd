"""The objective as people read it: its name, its sign and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctxpeft.analysis.statistics import Interval
from ctxpeft.search.outcome import Row


@dataclass(frozen=True)
class Scale:
    """Inside a study smaller is better; `greater` says that the number itself is better when greater.

    joint: whether it is a mean over tasks of losses relative to the frozen model's.
    """

    objective: str
    greater: bool
    joint: bool = False

    def of(self, value: float) -> float:
        """The number itself."""
        return -value if self.greater else value

    def cost(self, shown: float) -> float:
        """Back to the study's sign."""
        return -shown if self.greater else shown

    def better(self, first: float, second: float) -> float:
        """The better of two numbers."""
        return max(first, second) if self.greater else min(first, second)

    def interval(self, found: Interval | None) -> Interval | None:
        """An interval of means or differences with the number's own sign."""
        if found is None or not self.greater:
            return found
        return Interval(-found.mean, -found.high, -found.low, found.level)

    @property
    def label(self) -> str:
        """What an axis says."""
        name = "loss" if self.objective == "loss" else "metric"
        relative = " relative to the frozen model's, mean over tasks" if self.joint else ""
        return f"held-out {name}{relative} ({'higher' if self.greater else 'lower'} is better)"


def scale_of(about: dict[str, Any], rows: Sequence[Row]) -> Scale:
    """The scale of a study: a metric that is better when greater is kept negated."""
    objective = str(about["objective"])
    values = [v for row in rows for v in (row.rung, row.value) if v is not None]
    greater = objective == "metric" and not any(v > 0 for v in values)
    return Scale(objective, greater, objective == "loss" and len(about.get("tasks", ())) > 1)

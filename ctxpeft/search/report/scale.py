"""The objective as people read it: its name, its sign and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctxpeft.analysis.statistics import Interval
from ctxpeft.search.measures import TITLE, Name
from ctxpeft.search.outcome import Row


@dataclass(frozen=True)
class Scale:
    """Inside a study smaller is better; `greater` says that the number itself is better when greater.

    joint: whether it is the geometric mean over tasks of losses relative to the frozen model's.
    """

    objective: Name
    greater: bool
    joint: bool = False

    def of(self, value: float) -> float:
        """The number itself."""
        return -value if self.greater else value

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
        name = f"{'relative ' if self.joint else ''}{TITLE[self.objective]}"
        return f"{name} ({'higher' if self.greater else 'lower'} is better)"


def objectives_of(about: dict[str, Any]) -> list[Name]:
    """What decides, the first ranks."""
    return list(about.get("objectives", [about["objective"]]))


def scale_of(about: dict[str, Any], rows: Sequence[Row]) -> Scale:
    """The scale of full runs."""
    return _scale(objectives_of(about)[0], about, [row.value for row in rows])


def rung_scale_of(about: dict[str, Any], rows: Sequence[Row]) -> Scale:
    """The scale of the rung, which compares by what training improves, whatever ranks in the end."""
    names = objectives_of(about)
    return _scale(
        "metric" if "metric" in names and "loss" not in names else "loss", about, [r.rung for r in rows]
    )


def _scale(objective: Name, about: dict[str, Any], values: Sequence[float | None]) -> Scale:
    """A metric that is better when greater is kept negated."""
    greater = objective in ("metric", "ood") and not any(v > 0 for v in values if v is not None)
    return Scale(objective, greater, objective == "loss" and len(about.get("tasks", ())) > 1)

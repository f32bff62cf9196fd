"""What the fresh seeds say of the best designs and the anchors, as plain data; test data decide nothing here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from ctxpeft.analysis.statistics import (
    Interval,
    holm,
)
from ctxpeft.search.measures import Name

ALPHA = 0.05


@dataclass(frozen=True)
class TaskFinal:
    """One method on one of several tasks: its rate, its objective on validation and its main metric, a seed each."""

    task: str
    rate: float
    metric: str
    validation: list[float]
    test: list[float]


@dataclass(frozen=True)
class Final:
    """One method on the fresh seeds. `validation` is the first objective of each seed, smaller is better, `test` the
    main metric of each.

    searched: the objective of the search's own run; how far the fresh ones fall behind it is the winner's curse.
    tasks: one entry a task where there are several; `test` is then the mean over tasks of what they share, the main
    metric or the token loss relative to the frozen model.
    objectives: everything the search wants, by name, each seed with its own sign. violations: by how much the mean
    breaks which constraint.
    """

    number: int
    name: str
    anchor: str
    parameters: int | None
    rate: float
    searched: float
    validation: list[float]
    test: list[float]
    tasks: list[TaskFinal] = field(default_factory=list)
    objectives: dict[Name, list[float]] = field(default_factory=dict)
    violations: dict[Name, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean objective over the fresh seeds."""
        return fmean(self.validation)


@dataclass(frozen=True)
class Versus:
    """The winner against one anchor: `interval` is of winner minus anchor in the main metric of `split`.

    task: the task's name in a comparison on one of several; empty where it is over all there are.
    adjusted: the p-value, corrected for the number of comparisons of its kind by Holm's method.
    """

    anchor: str
    split: str
    metric: str
    greater_is_better: bool
    winner: float
    other: float
    interval: Interval
    task: str = ""
    adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not significant`: the corrected p-value at 0.05; the interval where there is none."""
        significant = self.interval.significant if self.adjusted is None else self.adjusted < ALPHA
        if not significant:
            return "not significant"
        return "better" if (self.interval.mean > 0) == self.greater_is_better else "worse"


@dataclass(frozen=True)
class Finals:
    """What the fresh seeds say. `winner` is the trial number, chosen on validation data alone.

    versus: the winner against each anchor, over all tasks. by_task: the same on each of several tasks.
    left_out: methods of which a fresh run diverged.
    """

    seeds: list[int]
    winner: int
    split: str
    methods: list[Final]
    versus: list[Versus]
    left_out: list[str] = field(default_factory=list)
    by_task: list[Versus] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Plain data, verdicts included."""
        data = asdict(self)
        for key in ("versus", "by_task"):
            for item, versus in zip(data[key], getattr(self, key), strict=True):
                item["verdict"] = versus.verdict
        return data

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Finals:
        """What `plain` gave."""
        methods = [
            Final(**{**method, "tasks": [TaskFinal(**task) for task in method.get("tasks", ())]})
            for method in data["methods"]
        ]
        versus, by_task = (
            [_versus_from(item) for item in data.get(key, ())] for key in ("versus", "by_task")
        )
        return cls(**{**data, "methods": methods, "versus": versus, "by_task": by_task})


def _versus_from(item: dict[str, Any]) -> Versus:
    kept = {key: value for key, value in item.items() if key != "verdict"}
    return Versus(**{**kept, "interval": Interval(**item["interval"])})


def winner_of(methods: Sequence[Final]) -> Final | None:
    """The design with the best mean of the first objective; one that breaks a constraint only where all do."""
    designs = [method for method in methods if not method.anchor]
    return min(designs, key=lambda m: (bool(m.violations), m.mean, m.number), default=None)


def corrected(versus: Sequence[Versus]) -> list[Versus]:
    """The p-values corrected for the number of comparisons."""
    adjusted = holm([v.interval.p or 0.0 for v in versus])
    return [replace(v, adjusted=p) for v, p in zip(versus, adjusted, strict=True)]

"""What became of each trial, read back from the study: one plain row a trial, for tables, reports and pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from ctxpeft.search.measures import OF_THE_DESIGN
from ctxpeft.search.pareto import ranks

Outcome = Literal["completed", "pruned", "failed", "memoised", "infeasible", "interrupted", "running"]
TRAINED: tuple[Outcome, ...] = ("completed", "pruned", "failed")


@dataclass(frozen=True)
class RateResult:
    """Held-out objective of one learning rate at the rung; None after divergence."""

    rate: float
    value: float | None


@dataclass(frozen=True)
class TaskScore:
    """What a trial reached on one of several tasks: its rates, its objective at the rung and in full, its metrics."""

    task: str
    rates: tuple[RateResult, ...] = ()
    rate: float | None = None
    rung: float | None = None
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def tried(self, rate: float) -> bool:
        """Whether a rate is among those compared at the rung."""
        return any(r.rate == rate for r in self.rates)

    @property
    def rate_at_edge(self) -> bool:
        """Whether the chosen rate is the smallest or largest that was tried: a wider grid may do better."""
        tried = [r.rate for r in self.rates]
        return len(tried) > 1 and self.rate in (min(tried), max(tried))

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> TaskScore:
        """What `dataclasses.asdict` gave."""
        return cls(**{**data, "rates": _rates(data.get("rates", ()))})


@dataclass(frozen=True)
class Row:
    """One trial. `value` and `rung` are the held-out objective (smaller is better) of the full run and at the rung.

    tasks: one entry a task where several are searched jointly. `value`, `rung` and `rates` are then over all of them
    (see `joint`), `rates` those that every task tried; `rate` is the middle one of the tasks' own, `metrics` are means
    of what all tasks have.
    levels: the objective at every rung that was reached. objectives: what was measured, by name, with its own sign;
    violations: by how much it breaks which constraint; costs: the objectives in their order, smaller is better.
    rung_costs: where several objectives decide, what was known and measured of them at every rung, smaller is better.
    audited: whether it was to stop at a rung and went on to the end all the same.
    anchor: the anchor's name, or "". size: the knob an anchor was resized by; published: its count before.
    same_as: the trial a memoised one repeats. metrics: every held-out metric of the full run.
    """

    number: int
    outcome: Outcome
    reason: str = ""
    rule: str = ""
    name: str = ""
    anchor: str = ""
    templates: tuple[str, ...] = ()
    parameters: int | None = None
    published: int | None = None
    size: str = ""
    rate: float | None = None
    rates: tuple[RateResult, ...] = ()
    rung: float | None = None
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    same_as: int | None = None
    fingerprint: str = ""
    variant: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskScore, ...] = ()
    levels: tuple[float, ...] = ()
    objectives: dict[str, float] = field(default_factory=dict)
    violations: dict[str, float] = field(default_factory=dict)
    costs: tuple[float, ...] = ()
    audited: bool = False
    rung_costs: tuple[dict[str, float], ...] = ()

    def plain(self) -> dict[str, Any]:
        """Plain data without what is empty."""
        return {k: v for k, v in asdict(self).items() if v is not False and v not in (None, "", {}, (), [])}

    @property
    def rate_at_edge(self) -> bool:
        """Whether the chosen rate, on any task, is the smallest or largest tried: a wider grid may do better."""
        if self.tasks:
            return any(score.rate_at_edge for score in self.tasks)
        return TaskScore("", self.rates, self.rate).rate_at_edge

    def beside(self, level: int) -> dict[str, float]:
        """What several objectives compare at a rung beside the held-out one."""
        if level < len(self.rung_costs):
            return self.rung_costs[level]
        return {name: value for name, value in self.objectives.items() if name in OF_THE_DESIGN}

    def score_of(self, task: str) -> TaskScore:
        """What was reached on a task."""
        whole = TaskScore(task, self.rates, self.rate, self.rung, self.value, self.metrics)
        return next((score for score in self.tasks if score.task == task), whole)

    @property
    def rate_text(self) -> str:
        """`0.003`, or one rate a task: `0.003, 0.009`."""
        own = [score.rate for score in self.tasks] or [self.rate]
        return ", ".join(f"{rate:g}" for rate in own if rate is not None)


def row_of(trial: FrozenTrial) -> Row:
    """The row of a trial, as the objective wrote it into the trial's attributes."""
    a = trial.user_attrs
    running = trial.state in (TrialState.RUNNING, TrialState.WAITING)
    outcome: Outcome = "running" if running else a.get("outcome", "interrupted")
    return Row(
        number=trial.number,
        outcome=outcome,
        reason=a.get("reason", ""),
        rule=a.get("rule", ""),
        name=a.get("anchor") or a.get("variant", {}).get("name", ""),
        anchor=a.get("anchor", ""),
        templates=tuple(a.get("templates", ())),
        parameters=a.get("parameters"),
        published=a.get("published"),
        size=a.get("size", ""),
        rate=a.get("rate"),
        rates=_rates(a.get("rates", ())),
        rung=a.get("rung"),
        value=a.get("value"),
        metrics=a.get("metrics", {}),
        seconds=a.get("seconds", 0.0),
        same_as=a.get("same_as"),
        fingerprint=a.get("fingerprint", ""),
        variant=a.get("variant", {}),
        choices=dict(trial.params),
        tasks=tuple(TaskScore.from_plain(score) for score in a.get("tasks", ())),
        levels=tuple(a.get("levels", () if a.get("rung") is None else (a["rung"],))),
        objectives=a.get("objectives", {}),
        violations=a.get("violations", {}),
        costs=tuple(a.get("costs", () if a.get("value") is None else (a["value"],))),
        audited=a.get("audited", False),
        rung_costs=tuple(a.get("rung_costs", ())),
    )


def _rates(plain: Iterable[dict[str, Any]]) -> tuple[RateResult, ...]:
    return tuple(RateResult(r["rate"], r["value"]) for r in plain)


def rows_of(trials: Iterable[FrozenTrial]) -> list[Row]:
    """Rows in order of trial."""
    return [row_of(trial) for trial in sorted(trials, key=lambda t: t.number)]


def tried(rows: Sequence[Row]) -> list[Row]:
    """Designs beyond the anchors that cost training: what `trials` counts."""
    return [row for row in rows if row.outcome in TRAINED and not row.anchor]


def ranking(rows: Sequence[Row], anchors: bool = True) -> list[Row]:
    """Completed rows that break no constraint, best first."""
    done = [
        row for row in rows if row.outcome == "completed" and row.value is not None and not row.violations
    ]
    return sorted((row for row in done if anchors or not row.anchor), key=lambda row: (row.value, row.number))


def front(rows: Sequence[Row]) -> list[Row]:
    """The completed rows that no other one beats in every objective, best first; with one objective, the best."""
    done = ranking(rows)
    found = ranks([row.costs for row in done])
    return [row for row, rank in zip(done, found, strict=True) if rank == 0]


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many trials came to what."""
    return dict(Counter(row.outcome for row in rows if not row.anchor))

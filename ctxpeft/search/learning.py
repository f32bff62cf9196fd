"""A design learns a task: its rate is tuned at the first rung, the best one goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from ctxpeft.analysis.rates import beyond
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.learned import Learned, metrics_of
from ctxpeft.search.outcome import RateResult, TaskScore
from ctxpeft.search.progress import Watch
from ctxpeft.spec.variant import Variant

if TYPE_CHECKING:
    from ctxpeft.training import RunResult


class DivergedError(Exception):
    """No learning rate led anywhere."""


class Learning:
    """The runs of one design on the tasks of a laboratory; `title` is what progress calls it."""

    def __init__(self, laboratory: Laboratory, watch: Watch, variant: Variant, title: str) -> None:
        self.laboratory, self.watch = laboratory, watch
        self.variant, self.title = variant, title
        self.runs: dict[tuple[str, float, int | None], Learned] = {}

    def tune(self, task: str) -> TaskScore:
        """Every rate to the first rung, each with a schedule of its own; while the best is at the edge, one beyond it.

        Raises DivergedError.
        """
        rates = self.laboratory.job.space.file.rates
        tried: dict[float, float | None] = {}
        wanted = rates.of(self.variant)
        best = self._best_after(tried, wanted, task)
        for _ in range(rates.widen):
            wider = beyond(list(tried), best)
            if wider is None:
                break
            best = self._best_after(tried, [wider], task)
        results = tuple(RateResult(rate, tried[rate]) for rate in sorted(tried))
        return TaskScore(task, results, best, tried[best])

    def _best_after(self, tried: dict[float, float | None], rates: list[float], task: str) -> float:
        """Bring rates to the first rung and into `tried`; the best of all. Raises DivergedError."""
        tried |= zip(rates, self._rung(task, rates), strict=True)
        values = {rate: value for rate, value in tried.items() if value is not None}
        if not values:
            told = ", ".join(f"{rate:g}" for rate in sorted(tried))
            raise DivergedError(f"every learning rate diverged{self._on(task)} ({told})")
        return min(sorted(values), key=lambda rate: values[rate])

    def climb(self, score: TaskScore, level: int | None) -> tuple[TaskScore, float]:
        """The best rate to a later rung, or to the end where `level` is None; after divergence the next best one.

        Returns the score and the objective there. Raises DivergedError.
        """
        order = sorted((r for r in score.rates if r.value is not None), key=lambda r: r.value or 0.0)
        for tried in order:
            value, metrics = self._value(score.task, tried.rate, level)
            if value is not None:
                reached = replace(score, rate=tried.rate)
                if level is None:
                    reached = replace(reached, value=value, metrics=metrics)
                return reached, value
        where = "in the full run" if level is None else f"at rung {level + 1}"
        raise DivergedError(f"every learning rate diverged {where}{self._on(score.task)}")

    def learned(self, score: TaskScore, level: int | None) -> Learned:
        """The run at a task's rate, to a rung or in full."""
        assert score.rate is not None
        return self.runs[score.task, score.rate, level]

    def full(self, task: str, rate: float) -> float | None:
        """The objective of the whole run at a rate; None after divergence."""
        return self._value(task, rate, None)[0]

    def _rung(self, task: str, rates: list[float]) -> list[float | None]:
        """What every rate reaches at the first rung; None for one that diverged."""
        laboratory, search = self.laboratory, self.laboratory.job.search
        if search.measured_at_rungs or laboratory.apart(
            self.variant, rates, laboratory.rung_steps(task), search.seed, task
        ):
            return [self._value(task, rate, 0)[0] for rate in rates]
        told = ", ".join(f"{rate:g}" for rate in rates)
        self.watch.activity = f"{self.title}{self._on(task)} at rates {told}, rung"
        results = laboratory.train_rates(
            self.variant,
            rates,
            laboratory.rung_steps(task),
            search.seed,
            self.watch,
            task=task,
            labels=search.quality == "metric",
        )
        return [self._reached(result)[0] for result in results]

    def _value(self, task: str, rate: float, level: int | None) -> tuple[float | None, dict[str, float]]:
        laboratory, search = self.laboratory, self.laboratory.job.search
        full = level is None
        elsewhere = "ood" in (search.wanted if full else search.measured_at_rungs)
        self.watch.activity = (
            f"{self.title}{self._on(task)} at rate {rate:g}, {'in full' if full else 'rung'}"
        )
        steps = laboratory.steps(task) if level is None else laboratory.rung_steps(task, level)
        labels = elsewhere or search.quality == "metric"
        labels |= full and (search.metrics or "metric" in search.wanted)
        splits = ("validation", "ood") if elsewhere else ("validation",)
        result = laboratory.train(
            self.variant, rate, steps, search.seed, splits, self.watch, task=task, labels=labels
        )
        value, metrics = self._reached(result)
        if value is not None:
            folder = laboratory.folder(
                self.variant, rate, steps, search.seed, splits, task=task, labels=labels
            )
            self.runs[task, rate, level] = Learned(metrics, folder)
        return value, metrics

    def _reached(self, result: RunResult) -> tuple[float | None, dict[str, float]]:
        """The score of a run and its metrics; None after divergence."""
        evaluation = result.evaluations.get("validation")
        value = self.laboratory.score(evaluation) if evaluation else math.nan
        if evaluation is None or not math.isfinite(value):
            return None, {}
        return value, metrics_of(result)

    def _on(self, task: str) -> str:
        return f" on {task}" if len(self.laboratory.tasks) > 1 else ""


def shared_metrics(scores: list[TaskScore]) -> dict[str, float]:
    """The metrics that all tasks have, their means."""
    first, *rest = [score.metrics for score in scores]
    return {k: fmean([v, *(m[k] for m in rest)]) for k, v in first.items() if all(k in m for m in rest)}

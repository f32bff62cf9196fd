"""One trial: a design, its learning rates at the rung, the full run with the best of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import fmean, median_low
from typing import Any

import optuna

from ctxpeft.search.bench import Laboratory
from ctxpeft.search.design import sample
from ctxpeft.search.outcome import TRAINED, RateResult, Row, TaskScore, rows_of
from ctxpeft.search.progress import Watch
from ctxpeft.search.space.chooser import TrialChooser
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant


class Objective:
    """What Optuna minimises: the held-out objective of a design at the best of its learning rates.

    The design must be new (a repeated one gets the value of the first). On every task, every rate is trained for the
    rung's steps with a schedule of its own; then the task's best rate is trained in full from the start. A design
    whose rung (over all tasks, see `joint`) is not among the better `keep` of all rungs so far stops there; anchors
    never do.
    """

    def __init__(self, laboratory: Laboratory, watch: Watch, owner: str = "") -> None:
        self.laboratory = laboratory
        self.owner = owner
        self.search = laboratory.job.search
        self.watch = watch

    def __call__(self, trial: optuna.Trial) -> float:
        began = time.monotonic()
        self._settle(trial, owner=self.owner)
        try:
            return self._run(trial)
        except InfeasibleError as error:
            trial.set_constraint("legal", 1.0)
            self._settle(trial, outcome="infeasible", rule=error.rule, reason=error.reason)
            raise optuna.TrialPruned(error.reason) from None
        except optuna.TrialPruned:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}"
            raise self._failed(trial, reason) from error
        finally:
            self._settle(trial, seconds=round(time.monotonic() - began, 2))

    def _run(self, trial: optuna.Trial) -> float:
        variant = self._design(trial)
        rows = rows_of(t for t in trial.study.get_trials(deepcopy=False) if t.number != trial.number)
        twin = next(
            (r for r in rows if r.fingerprint == variant.fingerprint() and _settles(r, trial.number)), None
        )
        if twin is not None:
            return self._repeat(trial, twin)
        scores = [self._rung(trial, variant, task) for task in self.laboratory.tasks]
        rung = self.laboratory.joint([score.rung for score in scores if score.rung is not None])
        trial.report(rung, self.laboratory.all_rung_steps)
        self._settle(trial, rung=rung)
        self._keep(trial, scores)
        bar = None if trial.user_attrs.get("anchor") else self._bar(rows)
        if bar is not None and rung > bar:
            reason = f"held-out {rung:.4f} at the rung; the better {self.search.keep:.0%} reach {bar:.4f}"
            self._settle(trial, outcome="pruned", reason=reason)
            raise optuna.TrialPruned(reason)
        scores = [self._finish(trial, variant, score) for score in scores]
        value = self.laboratory.joint([score.value for score in scores if score.value is not None])
        self._keep(trial, scores)
        self._settle(trial, outcome="completed", value=value, metrics=_shared_metrics(scores))
        return value

    def _design(self, trial: optuna.Trial) -> Variant:
        name = trial.user_attrs.get("anchor")
        if name:
            anchor = self.laboratory.anchor(name)
            variant = anchor.variant
            self._settle(trial, published=anchor.published, size=anchor.size, parameters=anchor.parameters)
        else:
            laboratory = self.laboratory
            positions = laboratory.job.space.positions
            guide = self.search.guide
            design = sample(positions, TrialChooser(trial), laboratory.counter, laboratory.target, guide)
            variant = design.variant
            self._settle(trial, templates=list(design.templates), parameters=design.parameters)
        self._settle(trial, variant=variant.to_dict(), fingerprint=variant.fingerprint())
        return variant

    def _repeat(self, trial: optuna.Trial, twin: Row) -> float:
        """The outcome of an equal design, at no cost."""
        self._settle(
            trial,
            outcome="memoised",
            same_as=twin.number,
            rate=twin.rate,
            reason=f"the same design as trial {twin.number}",
        )
        if twin.value is not None:
            return twin.value
        if twin.outcome == "failed":
            trial.set_constraint("trained", 1.0)
        if twin.rung is not None:
            trial.report(twin.rung, self.laboratory.all_rung_steps)
        raise optuna.TrialPruned(twin.reason)

    def _rung(self, trial: optuna.Trial, variant: Variant, task: str) -> TaskScore:
        rates: list[RateResult] = []
        for rate in self.laboratory.job.space.file.rates.of(variant):
            title = f"{self._title(trial, task)} at rate {rate:g}, rung"
            value, _ = self._value(title, variant, rate, self.laboratory.rung_steps(task), task)
            rates.append(RateResult(rate, value))
        best = min((r for r in rates if r.value is not None), key=lambda r: r.value or 0.0, default=None)
        if best is None:
            tried = ", ".join(f"{r.rate:g}" for r in rates)
            raise self._failed(trial, f"every learning rate diverged{self._on(task)} ({tried})")
        return TaskScore(task, tuple(rates), best.rate, best.value)

    def _finish(self, trial: optuna.Trial, variant: Variant, score: TaskScore) -> TaskScore:
        """The full run at the best rate; after divergence at the next best one."""
        order = sorted((r for r in score.rates if r.value is not None), key=lambda r: r.value or 0.0)
        for tried in order:
            title = f"{self._title(trial, score.task)} at rate {tried.rate:g}, in full"
            steps = self.laboratory.steps(score.task)
            value, metrics = self._value(title, variant, tried.rate, steps, score.task, self.search.metrics)
            if value is not None:
                return replace(score, rate=tried.rate, value=value, metrics=metrics)
        raise self._failed(trial, f"every learning rate diverged in the full run{self._on(score.task)}")

    def _value(
        self, title: str, variant: Variant, rate: float, steps: int, task: str, metrics: bool = False
    ) -> tuple[float | None, dict[str, float]]:
        self.watch.activity = title
        result = self.laboratory.train(
            variant,
            rate,
            steps,
            self.search.seed,
            reporter=self.watch,
            task=task,
            labels=metrics or self.search.objective == "metric",
        )
        evaluation = result.evaluations.get("validation")
        value = self.laboratory.score(evaluation) if evaluation else math.nan
        if evaluation is None or not math.isfinite(value):
            return None, {}
        return value, {k: v for k, v in evaluation.metrics.items() if math.isfinite(v)}

    def _keep(self, trial: optuna.Trial, scores: Sequence[TaskScore]) -> None:
        """What was reached, over all tasks and, where there are several, on each."""
        rate = median_low([score.rate for score in scores if score.rate is not None])
        grid = zip(*(score.rates for score in scores), strict=True)
        rates = [asdict(self._over_tasks(same)) for same in grid]
        self._settle(trial, rate=rate, rates=rates)
        if len(scores) > 1:
            self._settle(trial, tasks=[asdict(score) for score in scores])

    def _over_tasks(self, same: Sequence[RateResult]) -> RateResult:
        values = [r.value for r in same if r.value is not None]
        return RateResult(same[0].rate, self.laboratory.joint(values) if len(values) == len(same) else None)

    def _title(self, trial: optuna.Trial, task: str) -> str:
        return f"trial {trial.number}{self._on(task)}"

    def _on(self, task: str) -> str:
        return f" on {task}" if len(self.laboratory.tasks) > 1 else ""

    def _bar(self, rows: Sequence[Row]) -> float | None:
        """The rung value the better `keep` of all designs so far reach; None while they are few, or all are kept."""
        rungs = sorted(
            row.rung for row in rows if row.rung is not None and row.outcome in ("completed", "pruned")
        )
        if len(rungs) < max(1, self.search.warmup) or self.search.keep == 1:
            return None
        return rungs[max(0, math.ceil(self.search.keep * len(rungs)) - 1)]

    def _failed(self, trial: optuna.Trial, reason: str) -> optuna.TrialPruned:
        """Recorded with its reason; told to Optuna as a broken constraint, so that its like are avoided."""
        trial.set_constraint("trained", 1.0)
        self._settle(trial, outcome="failed", reason=reason)
        return optuna.TrialPruned(reason)

    def _settle(self, trial: optuna.Trial, **attributes: Any) -> None:
        for key, value in attributes.items():
            if value not in (None, "", []):
                trial.set_user_attr(key, value)


def _shared_metrics(scores: Sequence[TaskScore]) -> dict[str, float]:
    """The metrics that all tasks have, their means."""
    first, *rest = [score.metrics for score in scores]
    return {k: fmean([v, *(m[k] for m in rest)]) for k, v in first.items() if all(k in m for m in rest)}


def _settles(row: Row, number: int) -> bool:
    """Whether a row with the same design makes this trial a repetition."""
    return row.outcome in TRAINED or (row.outcome == "running" and row.number < number)


def variant_of(row: Row) -> Variant:
    """The variant of a row, as it was trained."""
    return load_variant(row.variant)

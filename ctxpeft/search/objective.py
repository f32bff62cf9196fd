"""One trial: a design, its learning rates at the rung, the full run with the best of them, what else is wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median_low
from typing import Any

import optuna

from ctxpeft.errors import DiskError
from ctxpeft.search import rungs
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.design import sample
from ctxpeft.search.disk import is_full
from ctxpeft.search.learned import measured
from ctxpeft.search.learning import DivergedError, Learning, shared_metrics
from ctxpeft.search.measures import Name, shown
from ctxpeft.search.outcome import TRAINED, RateResult, Row, TaskScore, rows_of
from ctxpeft.search.progress import Watch
from ctxpeft.search.space.chooser import TrialChooser
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant


class Objective:
    """What Optuna minimises: the objectives of a design at the best of its learning rates.

    The design must be new (a repeated one gets the values of the first). What is known of it before training must keep
    the constraints. On every task, every rate is trained to the first rung with a schedule of its own; the task's best
    rate goes on, from the start, to each further rung and to the end. A design stops at a rung where `rungs.stopped`
    says so; anchors never do.
    """

    def __init__(self, laboratory: Laboratory, watch: Watch, owner: str = "") -> None:
        self.laboratory = laboratory
        self.owner = owner
        self.search = laboratory.job.search
        self.watch = watch

    def __call__(self, trial: optuna.Trial) -> float | list[float]:
        began = time.monotonic()
        self._settle(trial, owner=self.owner)
        try:
            return self._run(trial)
        except InfeasibleError as error:
            trial.set_constraint("legal", 1.0)
            self._settle(trial, outcome="infeasible", rule=error.rule, reason=error.reason)
            raise optuna.TrialPruned(error.reason) from None
        except DivergedError as error:
            raise self._failed(trial, str(error)) from None
        except (optuna.TrialPruned, DiskError):
            raise
        except Exception as error:
            if is_full(error, self.laboratory.job.out):
                raise
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}"
            raise self._failed(trial, reason) from error
        finally:
            self._settle(trial, seconds=round(time.monotonic() - began, 2))

    def _run(self, trial: optuna.Trial) -> float | list[float]:
        variant = self._design(trial)
        rows, twin = self._others(trial, variant)
        if twin is not None:
            return self._repeat(trial, twin)
        known = self._known(trial, variant)
        learning = Learning(self.laboratory, self.watch, variant, f"trial {trial.number}")
        scores = [learning.tune(task) for task in self.laboratory.tasks]
        _, twin = self._others(trial, variant)  # one that another worker drew at the same moment
        if twin is not None:
            return self._repeat(trial, twin)
        scores = self._climb(trial, learning, scores, rows, known)
        finished = [learning.climb(score, None) for score in scores]
        scores = [score for score, _ in finished]
        quality = self.laboratory.joint([value for _, value in finished])
        self._keep(trial, scores)
        runs = [learning.learned(score, None) for score in scores]
        found = known | measured(self.laboratory, self.search.wanted, runs, quality)
        costs = [self.laboratory.cost(name, found[name]) for name in self.search.objectives]
        self._settle(
            trial,
            outcome="completed",
            value=costs[0],
            costs=costs if self.search.pareto else None,
            metrics=shared_metrics(scores),
            violations=self._violations(trial, found),
            objectives=found,
        )
        return costs if self.search.pareto else costs[0]

    def _others(self, trial: optuna.Trial, variant: Variant) -> tuple[list[Row], Row | None]:
        """The other trials, and the one of the same design that makes this one a repetition."""
        rows = rows_of(t for t in trial.study.get_trials(deepcopy=False) if t.number != trial.number)
        fingerprint = variant.fingerprint()
        same = (row for row in rows if row.fingerprint == fingerprint and _settles(row, trial.number))
        return rows, next(same, None)

    def _climb(
        self,
        trial: optuna.Trial,
        learning: Learning,
        scores: list[TaskScore],
        rows: Sequence[Row],
        known: dict[str, float],
    ) -> list[TaskScore]:
        """Past every rung; raises TrialPruned where the design stops."""
        laboratory, search = self.laboratory, self.search
        levels: list[float] = []
        beside: list[dict[str, float]] = []
        for level in range(len(search.rungs)):
            if level:
                reached = [learning.climb(score, level) for score in scores]
                scores = [score for score, _ in reached]
                levels.append(laboratory.joint([value for _, value in reached]))
            else:
                levels.append(laboratory.joint([score.rung for score in scores if score.rung is not None]))
                self._settle(trial, rung=levels[0])
            if not search.pareto:
                trial.report(levels[-1], laboratory.all_rung_steps(level))
            self._keep(trial, scores)
            beside.append(known | self._at_rung(learning, scores, level, levels[-1]))
            self._settle(trial, levels=levels if len(search.rungs) > 1 else None)
            self._settle(trial, rung_costs=beside if search.measured_at_rungs else None)
            if trial.user_attrs.get("anchor") or trial.user_attrs.get("audited"):
                continue
            reason = rungs.stopped(search, rows, level, levels[-1], beside[-1])
            if reason and rungs.audited(search, str(trial.user_attrs["fingerprint"])):
                self._settle(trial, audited=True, reason=f"{reason}; trained to the end to test the rung")
            elif reason:
                self._settle(trial, outcome="pruned", reason=reason)
                raise optuna.TrialPruned(reason)
        return scores

    def _at_rung(
        self, learning: Learning, scores: Sequence[TaskScore], level: int, quality: float
    ) -> dict[str, float]:
        """What of several objectives is measured at a rung, with the sign that makes smaller better."""
        laboratory, names = self.laboratory, self.search.measured_at_rungs
        if not names:
            return {}
        runs = [learning.learned(score, level) for score in scores]
        found = measured(laboratory, names, runs, quality)
        return {name: laboratory.cost(name, found[name]) for name in names}

    def _known(self, trial: optuna.Trial, variant: Variant) -> dict[str, float]:
        """What is wanted and known before training; a design that breaks a constraint here is not trained."""
        known: dict[str, float] = {}
        for name in self.search.wanted:
            if name == "parameters":
                known[name] = float(self.laboratory.counter(variant))
            elif name == "latency":
                known[name] = self.laboratory.latency(variant)
        self._settle(trial, objectives=known)
        broken = self._broken(known)
        if broken and not trial.user_attrs.get("anchor"):
            raise InfeasibleError("constraint", "; ".join(self._sentence(n, known[n]) for n in broken))
        return known

    def _violations(self, trial: optuna.Trial, found: dict[str, float]) -> dict[str, float]:
        """By how much each constraint is broken, told to Optuna too, which then avoids the like."""
        broken = self._broken(found)
        for name in self.search.constraints:
            trial.set_constraint(name, self.laboratory.excess(name, found[name]))
        if broken:
            self._settle(trial, reason="; ".join(self._sentence(name, found[name]) for name in broken))
        return {name: self.laboratory.excess(name, found[name]) for name in broken}

    def _broken(self, found: dict[str, float]) -> list[Name]:
        return [n for n in self.search.constraints if n in found and self.laboratory.excess(n, found[n]) > 0]

    def _sentence(self, name: Name, value: float) -> str:
        bound = self.search.constraints[name]
        side = "least" if self.laboratory.cost(name, 1.0) < 0 else "most"
        return f"{name} {shown(name, value)}, which is to be at {side} {bound:g}"

    def _design(self, trial: optuna.Trial) -> Variant:
        name = trial.user_attrs.get("anchor")
        if name:
            anchor = self.laboratory.anchor(name)
            variant = anchor.variant
            self._settle(trial, published=anchor.published, size=anchor.size, parameters=anchor.parameters)
        else:
            laboratory = self.laboratory
            positions = laboratory.job.space.positions
            chooser, guide = TrialChooser(trial), laboratory.guide
            design = sample(positions, chooser, laboratory.counter, laboratory.target, guide)
            variant = design.variant
            self._settle(trial, templates=list(design.templates), parameters=design.parameters)
        self._settle(trial, variant=variant.to_dict(), fingerprint=variant.fingerprint())
        return variant

    def _repeat(self, trial: optuna.Trial, twin: Row) -> float | list[float]:
        """The outcome of an equal design, at no cost."""
        self._settle(
            trial,
            outcome="memoised",
            same_as=twin.number,
            rate=twin.rate,
            reason=f"the same design as trial {twin.number}",
        )
        if twin.outcome == "completed":
            for name in self.search.constraints:
                trial.set_constraint(name, self.laboratory.excess(name, twin.objectives[name]))
            return list(twin.costs) if self.search.pareto else twin.costs[0]
        if twin.outcome == "failed":
            trial.set_constraint("trained", 1.0)
        if not self.search.pareto:
            for level, value in enumerate(twin.levels):
                trial.report(value, self.laboratory.all_rung_steps(level))
        raise optuna.TrialPruned(twin.reason)

    def _keep(self, trial: optuna.Trial, scores: Sequence[TaskScore]) -> None:
        """What was reached, over all tasks and, where there are several, on each."""
        rate = median_low([score.rate for score in scores if score.rate is not None])
        shared = [r for r in scores[0].rates if all(score.tried(r.rate) for score in scores)]
        rates = [asdict(self._over_tasks(r.rate, scores)) for r in shared]
        self._settle(trial, rate=rate, rates=rates)
        if len(scores) > 1:
            self._settle(trial, tasks=[asdict(score) for score in scores])

    def _over_tasks(self, rate: float, scores: Sequence[TaskScore]) -> RateResult:
        """A rate that every task tried, over all of them."""
        values = [r.value for score in scores for r in score.rates if r.rate == rate and r.value is not None]
        return RateResult(rate, self.laboratory.joint(values) if len(values) == len(scores) else None)

    def _failed(self, trial: optuna.Trial, reason: str) -> optuna.TrialPruned:
        """Recorded with its reason; told to Optuna as a broken constraint, so that its like are avoided."""
        trial.set_constraint("trained", 1.0)
        self._settle(trial, outcome="failed", reason=reason)
        return optuna.TrialPruned(reason)

    def _settle(self, trial: optuna.Trial, **attributes: Any) -> None:
        for key, value in attributes.items():
            if value not in (None, "", [], {}):
                trial.set_user_attr(key, value)


def _settles(row: Row, number: int) -> bool:
    """Whether a row with the same design makes this trial a repetition."""
    return row.outcome in TRAINED or (row.outcome == "running" and row.number < number)


def variant_of(row: Row) -> Variant:
    """The variant of a row, as it was trained."""
    return load_variant(row.variant)

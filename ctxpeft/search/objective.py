"""One trial: a design, its learning rates at the rung, the full run with the best of them, what else is wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean, median_low
from typing import Any

import optuna

from ctxpeft.errors import DiskError
from ctxpeft.search import rungs
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.design import sample
from ctxpeft.search.disk import is_full
from ctxpeft.search.learning import DivergedError, Learning, shared_metrics
from ctxpeft.search.measures import Name, shown
from ctxpeft.search.meter import adapter_bytes
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
        measured = known | self._learned(scores, quality, learning)
        costs = [self.laboratory.cost(name, measured[name]) for name in self.search.objectives]
        self._settle(
            trial,
            outcome="completed",
            value=costs[0],
            costs=costs if self.search.pareto else None,
            metrics=shared_metrics(scores),
            violations=self._violations(trial, measured),
            objectives=measured,
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
            self._settle(trial, levels=levels if len(search.rungs) > 1 else None)
            if trial.user_attrs.get("anchor") or trial.user_attrs.get("audited"):
                continue
            reason = rungs.stopped(search, rows, level, levels[-1], known)
            if reason and rungs.audited(search, str(trial.user_attrs["fingerprint"])):
                self._settle(trial, audited=True, reason=f"{reason}; trained to the end to test the rung")
            elif reason:
                self._settle(trial, outcome="pruned", reason=reason)
                raise optuna.TrialPruned(reason)
        return scores

    def _known(self, trial: optuna.Trial, variant: Variant) -> dict[str, float]:
        """What is wanted and known before training; a design that breaks a constraint here is not trained."""
        measured: dict[str, float] = {}
        for name in self.search.wanted:
            if name == "parameters":
                measured[name] = float(self.laboratory.counter(variant))
            elif name == "latency":
                measured[name] = self.laboratory.latency(variant)
        self._settle(trial, objectives=measured)
        broken = self._broken(measured)
        if broken and not trial.user_attrs.get("anchor"):
            raise InfeasibleError("constraint", "; ".join(self._sentence(n, measured[n]) for n in broken))
        return measured

    def _learned(self, scores: list[TaskScore], quality: float, learning: Learning) -> dict[str, float]:
        """What is wanted and known after training, means over tasks."""
        measured: dict[str, float] = {}
        folders = list(learning.folders.values())
        for name in self.search.wanted:
            if name == "loss":
                losses = [score.metrics["token_loss"] for score in scores]
                measured[name] = quality if self.search.quality == "loss" else fmean(losses)
            elif name == "metric":
                measured[name] = fmean(score.metrics[self.laboratory.metric] for score in scores)
            elif name == "ood":
                measured[name] = fmean(score.metrics["ood"] for score in scores)
            elif name == "forgetting":
                measured[name] = fmean(self.laboratory.other_text.increase(folder) for folder in folders)
            elif name == "bytes":
                measured[name] = float(adapter_bytes(folders[0]))
        return measured

    def _violations(self, trial: optuna.Trial, measured: dict[str, float]) -> dict[str, float]:
        """By how much each constraint is broken, told to Optuna too, which then avoids the like."""
        broken = self._broken(measured)
        for name in self.search.constraints:
            trial.set_constraint(name, self._excess(name, measured[name]))
        if broken:
            self._settle(trial, reason="; ".join(self._sentence(name, measured[name]) for name in broken))
        return {name: self._excess(name, measured[name]) for name in broken}

    def _broken(self, measured: dict[str, float]) -> list[Name]:
        return [n for n in self.search.constraints if n in measured and self._excess(n, measured[n]) > 0]

    def _excess(self, name: Name, value: float) -> float:
        bound = self.search.constraints[name]
        return self.laboratory.cost(name, value) - self.laboratory.cost(name, bound)

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
                trial.set_constraint(name, self._excess(name, twin.objectives[name]))
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

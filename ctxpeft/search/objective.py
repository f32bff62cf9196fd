"""One trial: a design, its learning rates at the rung, the full run with the best of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import optuna

from ctxpeft.search.bench import Laboratory
from ctxpeft.search.design import sample
from ctxpeft.search.outcome import TRAINED, RateResult, Row, rows_of
from ctxpeft.search.progress import Watch
from ctxpeft.search.space.chooser import TrialChooser
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant


class Objective:
    """What Optuna minimises: the held-out objective of a design at the best of its learning rates.

    The design must be new (a repeated one gets the value of the first). Every rate is trained for the rung's steps
    with a schedule of its own; then the best rate is trained in full from the start. A design whose best rung is
    not among the better `keep` of all rungs so far stops there; anchors never do.
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
        rates = self._rung(trial, variant)
        best = min((r for r in rates if r.value is not None), key=lambda r: r.value or 0.0, default=None)
        if best is None or best.value is None:
            reason = f"every learning rate diverged ({', '.join(f'{r.rate:g}' for r in rates)})"
            raise self._failed(trial, reason)
        trial.report(best.value, self.laboratory.rung_steps)
        self._settle(trial, rung=best.value, rate=best.rate)
        bar = None if trial.user_attrs.get("anchor") else self._bar(rows)
        if bar is not None and best.value > bar:
            reason = (
                f"held-out {best.value:.4f} at the rung; the better {self.search.keep:.0%} reach {bar:.4f}"
            )
            self._settle(trial, outcome="pruned", reason=reason)
            raise optuna.TrialPruned(reason)
        return self._finish(trial, variant, rates)

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
            trial.report(twin.rung, self.laboratory.rung_steps)
        raise optuna.TrialPruned(twin.reason)

    def _rung(self, trial: optuna.Trial, variant: Variant) -> list[RateResult]:
        rates: list[RateResult] = []
        for rate in self.laboratory.job.space.file.rates.of(variant):
            title = f"trial {trial.number} at rate {rate:g}, rung"
            value, _ = self._value(title, variant, rate, self.laboratory.rung_steps)
            rates.append(RateResult(rate, value))
        self._settle(trial, rates=[asdict(r) for r in rates])
        return rates

    def _finish(self, trial: optuna.Trial, variant: Variant, rates: Sequence[RateResult]) -> float:
        """The full run at the best rate; after divergence at the next best one."""
        order = sorted((r for r in rates if r.value is not None), key=lambda r: r.value or 0.0)
        for tried in order:
            title = f"trial {trial.number} at rate {tried.rate:g}, in full"
            value, metrics = self._value(title, variant, tried.rate, self.laboratory.steps)
            if value is not None:
                self._settle(trial, outcome="completed", value=value, rate=tried.rate, metrics=metrics)
                return value
        reason = "every learning rate diverged in the full run"
        raise self._failed(trial, reason)

    def _value(
        self, title: str, variant: Variant, rate: float, steps: int
    ) -> tuple[float | None, dict[str, float]]:
        self.watch.activity = title
        result = self.laboratory.train(variant, rate, steps, self.search.seed, reporter=self.watch)
        evaluation = result.evaluations.get("validation")
        value = self.laboratory.score(evaluation) if evaluation else math.nan
        if evaluation is None or not math.isfinite(value):
            return None, {}
        return value, {k: v for k, v in evaluation.metrics.items() if math.isfinite(v)}

    def _bar(self, rows: Sequence[Row]) -> float | None:
        """The rung value that the better `keep` of all designs so far reach; None while they are few."""
        rungs = sorted(
            row.rung for row in rows if row.rung is not None and row.outcome in ("completed", "pruned")
        )
        if len(rungs) < max(1, self.search.warmup):
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


def _settles(row: Row, number: int) -> bool:
    """Whether a row with the same design makes this trial a repetition."""
    return row.outcome in TRAINED or (row.outcome == "running" and row.number < number)


def variant_of(row: Row) -> Variant:
    """The variant of a row, as it was trained."""
    return load_variant(row.variant)

"""A Gaussian process for a conditional space."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from ctxpeft.search.outcome import Row, rows_of
from ctxpeft.search.pareto import ranks
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.nodes import Label, Position, Range
from ctxpeft.search.space.walk import InfeasibleError, walk
from ctxpeft.spec.guide import Facts

CANDIDATES = 256
Array = NDArray[np.float64]


class Process(BaseSampler):  # type: ignore[misc]
    """Expected improvement under scikit-learn's Gaussian process, over designs drawn from the space itself.

    Optuna's own sampler models the dimensions that all trials share: in a conditional space none. Here a design is a
    vector of its answers (one entry an alternative, absent ones zero), so designs are near that answer the same
    questions alike. What is modelled is the rank of a design, as a normal quantile: completed ones by their value, then
    pruned ones by their rung, then those that break a constraint by how much, and last, all alike, those that failed
    or were infeasible. The best of 256 random designs is proposed.

    Args:
        positions: the space.
        solve: whether the finest sizes are solved for a budget.
        guide: what the construction guide is told, within which designs stay; None without it.
        startup: designs drawn at random before the model is asked.
        seed: of the candidates.
    """

    def __init__(
        self, positions: tuple[Position, ...], solve: bool, guide: Facts | None, startup: int, seed: int
    ) -> None:
        self.positions, self.solve, self.guide = positions, solve, guide
        self.startup, self.seed = startup, seed
        self._random = RandomSampler(seed=seed)
        self._proposed: dict[str, Label] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """None: every question is answered when it is asked."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the whole design."""
        rows = [r for r in rows_of(study.get_trials(deepcopy=False)) if r.choices]
        trained = [r for r in rows if r.outcome in ("completed", "pruned") and r.rung is not None]
        refused = [r for r in rows if r.outcome in ("failed", "infeasible")]
        if len(trained) >= max(2, self.startup):
            self._proposed = self._propose(trained, refused)
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The proposal's answer; a random one where it has none that fits."""
        if param_name in self._proposed:
            return self._proposed[param_name]
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, trained: Sequence[Row], refused: Sequence[Row]) -> dict[str, Label]:
        chooser = random.Random(self.seed)
        drawn = [d for d in (self._draw(chooser.getrandbits(31)) for _ in range(CANDIDATES)) if d]
        known = [dict(row.choices) for row in (*trained, *refused)]
        fresh = [d for d in drawn if d not in known]
        if not fresh:
            return {}
        behind, count = [len(trained)] * len(refused), len(trained) + bool(refused)
        scores = [rank_score(place, count) for place in (*places(trained), *behind)]
        features = encoded([*known, *fresh])
        gain = expected_improvement(features[: len(known)], np.array(scores), features[len(known) :])
        return fresh[int(gain.argmax())]

    def _draw(self, seed: int) -> dict[str, Label]:
        chooser = _Scaled(seed)
        try:
            walk(self.positions, chooser, self.solve, self.guide)
        except InfeasibleError:
            return {}
        return chooser.asked


class _Scaled(RandomChooser):
    """A random draw whose numbers are what Optuna stores."""

    def number(self, name: str, span: Range) -> float:
        value = super().number(name, span)
        self.asked[name] = int(value) if span.integer else float(value)
        return value


def places(rows: Sequence[Row]) -> list[int]:
    """Each row's place, best first: completed rows by Pareto front and value, then pruned ones by rung, then those that
    break a constraint by how much, all constraints together.
    """
    done = [row for row in rows if row.value is not None and not row.violations]
    fronts = dict(zip((row.number for row in done), ranks([row.costs for row in done]), strict=True))
    key = [
        (
            sum(row.violations.values()),
            fronts.get(row.number, len(rows)),
            row.value if row.value is not None else row.rung,
            row.number,
        )
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda i: key[i])
    return [order.index(i) for i in range(len(rows))]


def rank_score(place: int, count: int) -> float:
    """The normal quantile of a place; smaller is better."""
    return NormalDist().inv_cdf((place + 0.5) / count)


def encoded(designs: Sequence[Mapping[str, Any]]) -> Array:
    """Designs as rows: an indicator for each answer that occurs, and where it is a number, its place in [0, 1]."""
    columns: dict[tuple[str, Any], int] = {}
    numbers: dict[str, list[float]] = {}
    for design in designs:
        for name, answer in design.items():
            columns.setdefault((name, _kind(answer)), len(columns))
            if _is_number(answer):
                numbers.setdefault(name, []).append(float(answer))
    table = np.zeros((len(designs), 2 * len(columns)))
    for i, design in enumerate(designs):
        for name, answer in design.items():
            column = columns[name, _kind(answer)]
            table[i, 2 * column] = 1.0
            if _is_number(answer):
                table[i, 2 * column + 1] = _between(float(answer), numbers[name])
    return table


def expected_improvement(known: Array, scores: Array, candidates: Array) -> Array:
    """How much each candidate is expected to fall below the best score."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel(1.0, (0.1, 10.0)) * Matern(2.0, (0.3, 20.0), nu=2.5) + WhiteKernel(
        0.2, (0.01, 2.0)
    )
    model = GaussianProcessRegressor(kernel, n_restarts_optimizer=0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(known, scores)
    mean, deviation = model.predict(candidates, return_std=True)
    deviation = np.maximum(deviation, 1e-9)
    z = (scores.min() - mean) / deviation
    normal = NormalDist()
    gain: Array = deviation * np.array([v * normal.cdf(v) + normal.pdf(v) for v in z])
    return gain


def _is_number(answer: Any) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool)


def _kind(answer: Any) -> Any:
    """What tells answers apart: numbers share one column."""
    return "number" if _is_number(answer) else (type(answer).__name__, answer)


def _between(value: float, seen: Sequence[float]) -> float:
    low, high = min(seen), max(seen)
    if low > 0 and high / low >= 10:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low) if high > low else 0.5

"""Paired statistics over seeds and examples.

Shapes: S seeds, N examples, R resamples. Runs of two variants with the same seed share their data order, and all
runs share their test examples, so differences are taken per seed and example and both are resampled (a crossed
hierarchical bootstrap: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_CHUNK = 1 << 22  # resample weights held at once


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap percentile interval at `level`.

    p: two-sided, of a mean of zero: twice the smaller share of resamples on one side of it, counting one more.
    """

    mean: float
    low: float
    high: float
    level: float = 0.95
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    @property
    def word(self) -> str:
        """`significant` or `not significant`."""
        return "significant" if self.significant else "not significant"


def bootstrap_mean(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The weighted mean of `values` (S, N) and its interval, seeds and examples both resampled.

    Deviations between seeds are widened by sqrt(S / (S - 1)), without which a bootstrap over few seeds is too
    narrow. One seed says nothing about seeds: the interval is then about examples alone.

    Args:
        values: one row a seed, one column an example.
        weights: (N,) weight of each example; equal when None.
        resamples: R.
        seed: of the resampling.
        level: coverage.

    Raises:
        ValueError: empty or ragged input.
    """
    matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, count = matrix.shape
    if not seeds or not count:
        raise ValueError("no values to resample")
    matrix, weight = _weighted(matrix, weights)
    count = len(weight)
    overall = float((matrix @ weight / weight.sum()).mean())
    matrix = _widened(matrix)
    random = np.random.default_rng([seed, seeds, count])
    found: list[Array] = []
    size = max(1, min(resamples, _CHUNK // count))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        seed_share = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=rows) / seeds
        found.append(_resampled(random, seed_share, matrix, weight))
    return _percentiles(overall, found, level)


def paired_difference(
    values: ArrayLike,
    reference: ArrayLike,
    weights: ArrayLike | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The interval of `values - reference`, both (S, N) and paired by seed and example.

    Raises:
        ValueError: the two do not have the same shape.
    """
    first = np.atleast_2d(np.asarray(values, dtype=np.float64))
    second = np.atleast_2d(np.asarray(reference, dtype=np.float64))
    if first.shape != second.shape:
        raise ValueError(
            f"cannot pair {first.shape} with {second.shape}: expected the same seeds and examples"
        )
    return bootstrap_mean(first - second, weights, resamples, seed, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of m tests, adjusted so that those below alpha are false for one or more with probability alpha.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979: the i-th
    smallest of m times m - i + 1, never below the one before it, at most 1.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def pooled_difference(
    groups: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The interval of the mean over tasks of `values - reference`, every task counting the same.

    Seeds are resampled together for all tasks (a seed gives every task the same beginning), examples within each.

    Args:
        groups: for each task the values (S, N), the reference (S, N) and the weights (N,); S is the same for all.
        resamples: R.
        seed: of the resampling.
        level: coverage.

    Raises:
        ValueError: no task, or tasks or methods of unequal shapes.
    """
    tasks = [_differences(*group) for group in groups]
    if not tasks or len({len(matrix) for matrix, _ in tasks}) != 1:
        raise ValueError("expected one task or more, each with the same number of seeds")
    seeds = len(tasks[0][0])
    random = np.random.default_rng([seed, seeds, *(len(weight) for _, weight in tasks)])
    overall = float(np.mean([(matrix @ weight / weight.sum()).mean() for matrix, weight in tasks]))
    wide = [(_widened(matrix), weight) for matrix, weight in tasks]
    found: list[Array] = []
    size = max(1, min(resamples, _CHUNK // max(len(weight) for _, weight in tasks)))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        share = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=rows) / seeds
        found.append(np.mean([_resampled(random, share, *task) for task in wide], axis=0))
    return _percentiles(overall, found, level)


def _differences(values: ArrayLike, reference: ArrayLike, weights: ArrayLike) -> tuple[Array, Array]:
    first, second = (np.atleast_2d(np.asarray(m, dtype=np.float64)) for m in (values, reference))
    if first.shape != second.shape:
        raise ValueError(
            f"cannot pair {first.shape} with {second.shape}: expected the same seeds and examples"
        )
    return _weighted(first - second, weights)


def _weighted(matrix: Array, weights: ArrayLike | None) -> tuple[Array, Array]:
    """Values and weights without the examples of weight zero."""
    count = matrix.shape[1]
    weight = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != (count,):
        raise ValueError(f"expected {count} weights, got {weight.shape}")
    if not (weight > 0).any():
        raise ValueError("every example has weight zero")
    return matrix[:, weight > 0], weight[weight > 0]


def _widened(matrix: Array) -> Array:
    """Deviations between seeds times sqrt(S / (S - 1)): the bootstrap's own are too small by that."""
    seeds = len(matrix)
    across = matrix.mean(axis=0)
    return across + (matrix - across) * np.sqrt(seeds / (seeds - 1)) if seeds > 1 else matrix


def _resampled(random: np.random.Generator, share: Array, matrix: Array, weight: Array) -> Array:
    """Weighted means of R resamples: seeds by `share` (R, S), examples drawn here."""
    count = len(weight)
    picks = random.multinomial(count, np.full(count, 1 / count), size=len(share)) * weight
    means: Array = ((share @ matrix) * picks).sum(axis=1) / picks.sum(axis=1)
    return means


def _percentiles(overall: float, found: Sequence[Array], level: float) -> Interval:
    tail = (1 - level) / 2
    drawn = np.concatenate(found)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    sides = np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0)
    p = min(1.0, 2 * (min(sides) + 1) / (len(drawn) + 1))
    return Interval(overall, float(low), float(high), level, p)


def standard_deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None for fewer than two values."""
    return float(np.std(np.asarray(values), ddof=1)) if len(values) > 1 else None


def as_matrix(runs: Sequence[Any]) -> tuple[Array, Array, list[str]]:
    """Values (S, N), weights (N,) and example ids from the `Evaluation`s of one variant's seeds.

    Raises:
        ValueError: the evaluations are not of the same examples in the same order.
    """
    ids = [record.id for record in runs[0].records]
    for run in runs[1:]:
        if [record.id for record in run.records] != ids:
            raise ValueError("the runs were evaluated on different examples")
    values = np.array([[record.value for record in run.records] for run in runs])
    weights = np.array([record.weight for record in runs[0].records])
    return values, weights, ids

"""Means of unpaired groups and the difference of two, for designs that were each trained once.

Intervals are Student's: they take the values of a group for independent draws with a spread of their own (the mean) or
one common spread (the difference).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from ctxpeft.analysis.statistics import Interval


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """The mean of a group and its interval; None for fewer than two values, which have no spread."""
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=np.float64)
    half = float(stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half, level)


def difference(
    values: Sequence[float],
    chosen: Sequence[bool],
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Interval | None:
    """Mean of the chosen values minus mean of the others, each compared within its own group.

    Least squares of the values on `chosen` and one mean a group; with one group the two-sample t interval with pooled
    variance. Groups in which all or none are chosen say nothing and are left out.

    Returns:
        None where no group has both, or where too few values are left to tell a spread.
    """
    y = np.asarray(values, dtype=np.float64)
    x = np.asarray(chosen, dtype=np.float64)
    labels = list(groups) if groups is not None else [0] * len(y)
    mixed = [label for label in dict.fromkeys(labels) if len({x[i] for i in _of(labels, label)}) > 1]
    kept = [i for label in mixed for i in _of(labels, label)]
    freedom = len(kept) - len(mixed) - 1
    if not mixed or freedom < 1:
        return None
    for label in mixed:
        places = _of(labels, label)
        x[places] -= x[places].mean()
        y[places] -= y[places].mean()
    x, y = x[kept], y[kept]
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    error = float(np.sqrt(residual @ residual / freedom / (x @ x)))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Interval(slope, slope - half, slope + half, level)


def _of(labels: Sequence[Hashable], label: Hashable) -> list[int]:
    return [index for index, found in enumerate(labels) if found == label]

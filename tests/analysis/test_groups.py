"""Intervals of unpaired groups, against scipy and against least squares written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ctxpeft.analysis.groups import difference, mean_interval


def test_mean_interval_is_students() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    found = mean_interval(values)
    assert found is not None
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert mean_interval([1.0]) is None


def test_one_group_is_the_two_sample_t_interval() -> None:
    first, second = [1.0, 1.5, 0.5, 1.2], [2.0, 2.5, 1.7]
    found = difference(first + second, [True] * 4 + [False] * 3)
    assert found is not None
    low, high = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(first) - np.mean(second), low, high))


def test_groups_are_compared_within_themselves() -> None:
    random = np.random.default_rng(0)
    groups = ["a"] * 5 + ["b"] * 6 + ["c"] * 3
    chosen = [True, True, False, False, False, True, False, False, False, False, True, True, True, True]
    level = {"a": 0.0, "b": 10.0, "c": -5.0}
    y = [level[g] + 0.5 * c + random.normal(0, 0.1) for g, c in zip(groups, chosen, strict=True)]
    found = difference(y, chosen, groups)
    assert found is not None
    kept = slice(0, 11)
    design = np.array(
        [[c, g == "a", g == "b"] for g, c in zip(groups[kept], chosen[kept], strict=True)], float
    )
    solved, residual, _, _ = np.linalg.lstsq(design, np.array(y[kept]), rcond=None)
    error = np.sqrt(residual[0] / (11 - 3) * np.linalg.inv(design.T @ design)[0, 0])
    half = stats.t.ppf(0.975, 11 - 3) * error
    expected = (solved[0], solved[0] - half, solved[0] + half)
    assert (found.mean, found.low, found.high) == pytest.approx(expected), "group c says nothing"


def test_nothing_to_compare() -> None:
    assert difference([1.0, 2.0], [True, True]) is None
    assert difference([1.0, 2.0], [True, False]) is None
    assert difference([1.0, 2.0, 3.0, 4.0], [True, True, False, False], ["a", "a", "b", "b"]) is None

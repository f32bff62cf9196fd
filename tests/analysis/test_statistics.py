"""Intervals against known values, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctxpeft.analysis.rates import RateTrial, best_rate, rate_grid, tune_rate
from ctxpeft.analysis.statistics import (
    bootstrap_mean,
    holm,
    paired_difference,
    pooled_difference,
    standard_deviation,
)


def test_identical_runs_differ_by_nothing() -> None:
    values = np.random.default_rng(0).random((4, 50))
    found = paired_difference(values, values)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.word == "not significant"


def test_a_constant_shift_is_found_exactly() -> None:
    values = np.random.default_rng(0).random((4, 50))
    found = paired_difference(values + 0.25, values)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.word == "significant"


def test_one_seed_gives_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, size=400)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_many_seeds_of_one_example_give_the_interval_over_seeds() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, size=(200, 1))
    found = bootstrap_mean(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std(ddof=1) / np.sqrt(200), rel=0.06)


def test_weights_are_those_of_a_ratio() -> None:
    values, weights = np.array([[1.0, 2.0, 6.0]]), np.array([3.0, 1.0, 0.0])
    found = bootstrap_mean(values, weights, resamples=200)
    assert found.mean == pytest.approx(1.25)
    with pytest.raises(ValueError, match="expected 3 weights"):
        bootstrap_mean(values, weights[:2])


def test_the_seed_of_the_resampling_decides() -> None:
    values = np.random.default_rng(3).random((3, 40))
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_chunks_do_not_matter_for_the_size_of_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random((3, 40))
    whole = bootstrap_mean(values)
    monkeypatch.setattr("ctxpeft.analysis.statistics._CHUNK", 4000)
    assert bootstrap_mean(values).high == pytest.approx(whole.high, abs=0.01)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage(seeds: int) -> None:
    """The interval holds the true difference in 95 % of studies, seeds and examples both drawn."""
    random, truth, hits, studies = np.random.default_rng(seeds), 0.3, 0, 200
    for study in range(studies):
        by_seed = random.normal(0, 0.15, size=(seeds, 1))
        by_example = random.normal(0, 1.0, size=(1, 80))
        noise = random.normal(0, 0.5, size=(seeds, 80))
        base = random.random((seeds, 80))
        found = paired_difference(
            base + truth + by_seed + by_example + noise, base, resamples=600, seed=study
        )
        hits += found.low <= truth <= found.high
    assert 0.89 <= hits / studies <= 0.99


def test_unpaired_input_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean(np.zeros((2, 0)))
    assert standard_deviation([1.0]) is None
    assert standard_deviation([1.0, 3.0]) == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize(
    ("optimum", "tried"), [(3e-3, 3), (1e-3, 4), (9e-3, 4), (1e-4, 5), (1.0, 5), (2.7e-2, 5)]
)
def test_a_rate_at_the_edge_widens_the_sweep(optimum: float, tried: int) -> None:
    seen: list[float] = []

    def measure(rate: float) -> RateTrial:
        seen.append(rate)
        return RateTrial(rate, abs(np.log(rate / optimum)), None)

    trials = tune_rate(rate_grid(3e-3), measure)
    assert len(seen) == tried == len(trials)
    assert len(set(seen)) == tried
    assert [t.rate for t in trials] == sorted(t.rate for t in trials)


def test_diverged_rates_are_never_best() -> None:
    trials = [
        RateTrial(1.0, float("nan"), None),
        RateTrial(0.1, 2.0, None),
        RateTrial(0.3, float("inf"), None),
    ]
    assert best_rate(trials).rate == 0.1
    assert rate_grid(3e-3) == pytest.approx([1e-3, 3e-3, 9e-3])


def test_holm_is_the_step_down_procedure() -> None:
    """The adjusted p-value is the smallest level at which the procedure of Holm (1979) rejects."""
    p = [0.01, 0.04, 0.03, 0.005, 0.2]
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])
    assert holm([]) == []
    assert holm([0.5]) == [0.5]
    assert holm([0.4, 0.6, 0.5]) == [1.0, 1.0, 1.0]
    random = np.random.default_rng(4)
    for _ in range(50):
        found = random.random(6) ** 3
        adjusted = np.array(holm(found.tolist()))
        for level in (0.01, 0.05, 0.2):
            rejected = np.zeros(6, bool)
            for rank, index in enumerate(np.argsort(found)):
                if found[index] > level / (6 - rank):
                    break
                rejected[index] = True
            assert (rejected == (adjusted <= level + 1e-15)).all()


def test_the_p_value_is_that_of_the_interval() -> None:
    """A mean of normal values: the p-value of the bootstrap is near that of the z-test."""
    values = np.random.default_rng(5).normal(0.1, 1.0, size=400)
    z = values.mean() / (values.std() / np.sqrt(400))
    expected = 2 * (1 - 0.5 * (1 + math.erf(abs(z) / math.sqrt(2))))
    found = bootstrap_mean(values)
    assert found.p == pytest.approx(expected, abs=0.02)
    assert (found.p < 0.05) == found.significant
    nothing = paired_difference(np.ones((2, 5)), np.ones((2, 5)), resamples=99)
    assert nothing.p == 1.0
    assert paired_difference(np.ones((2, 5)), np.zeros((2, 5)), resamples=99).p == pytest.approx(0.02)


def test_one_task_pooled_is_that_task() -> None:
    random = np.random.default_rng(5)
    first, second, weights = random.random((3, 60)), random.random((3, 60)), random.random(60)
    pooled = pooled_difference([(first, second, weights)])
    alone = paired_difference(first, second, weights)
    assert pooled.mean == pytest.approx(alone.mean)
    assert (pooled.low, pooled.high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_every_task_counts_the_same() -> None:
    """The mean of the tasks' own means, whatever their numbers of examples; more tasks give a narrower interval."""
    random = np.random.default_rng(6)
    groups = [(random.normal(0.2, 1, (60, n)), np.zeros((60, n)), np.ones(n)) for n in (40, 400, 40)]
    pooled = pooled_difference(groups)
    alone = [paired_difference(*group) for group in groups]
    assert pooled.mean == pytest.approx(sum(a.mean for a in alone) / 3)
    assert pooled.high - pooled.low < alone[0].high - alone[0].low
    widths = [(a.high - a.low) / 3 for a in alone]
    assert pooled.high - pooled.low == pytest.approx(sum(w * w for w in widths) ** 0.5, rel=0.15)


def test_seeds_are_drawn_together() -> None:
    """A seed that helps all tasks alike must not cancel between them."""
    effect = np.array([[0.0], [1.0], [2.0]])
    groups = [(np.tile(effect, (1, 50)), np.zeros((3, 50)), np.ones(50))] * 2
    pooled, alone = pooled_difference(groups), paired_difference(*groups[0])
    assert (pooled.low, pooled.high) == pytest.approx((alone.low, alone.high), abs=0.05)


def test_tasks_need_the_same_number_of_seeds() -> None:
    one, two = np.zeros((1, 4)), np.zeros((2, 4))
    with pytest.raises(ValueError, match="same number of seeds"):
        pooled_difference([(one, one, np.ones(4)), (two, two, np.ones(4))])
    with pytest.raises(ValueError, match="cannot pair"):
        pooled_difference([(one, two, np.ones(4))])
    with pytest.raises(ValueError, match="same number of seeds"):
        pooled_difference([])

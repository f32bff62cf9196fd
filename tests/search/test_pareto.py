"""Fronts against their definition, and the search's own halving: who stops at a rung."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxpeft.search.fidelity import fidelity, in_words
from ctxpeft.search.outcome import RateResult, Row, front
from ctxpeft.search.pareto import ahead, dominates, ranks
from ctxpeft.search.rungs import audited, stopped
from ctxpeft.search.settings import Search

POINTS = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=1, max_size=12)


@given(POINTS)
def test_a_front_is_what_only_earlier_fronts_beat(points: list[list[int]]) -> None:
    found = ranks(points)
    for i, mine in enumerate(points):
        beaten = [found[j] for j, other in enumerate(points) if dominates(other, mine)]
        assert found[i] == (max(beaten) + 1 if beaten else 0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10), st.integers(0, 9))
def test_with_one_objective_those_ahead_are_the_smaller_ones(values: list[int], mine: int) -> None:
    smaller = {v for v in values if v < mine}
    assert (ahead([[v] for v in values], [mine]) > 0) == bool(smaller)
    assert ahead([[v] for v in values], [mine]) == sum(v < mine for v in values)


def row(number: int, rung: float, outcome: Any = "completed", **more: Any) -> Row:
    """A trained design."""
    return Row(number, outcome, rung=rung, levels=(rung,), rates=(RateResult(0.1, rung),), **more)


@given(st.lists(st.floats(0, 5), min_size=4, max_size=12), st.floats(0, 5), st.sampled_from([0.25, 0.5, 0.8]))
def test_the_better_share_of_all_designs_goes_on(values: list[float], mine: float, keep: float) -> None:
    rows = [row(i, value, "pruned" if i % 2 else "completed") for i, value in enumerate(values)]
    bar = sorted(values)[max(0, math.ceil(keep * len(values)) - 1)]
    reason = stopped(Search(keep=keep), rows, 0, mine, {})
    assert bool(reason) == (mine > bar)
    assert not reason or f"the better {keep:.0%} reach {bar:.4f}" in reason


def test_nobody_stops_while_they_are_few_or_all_are_kept() -> None:
    rows = [row(i, 1.0) for i in range(3)]
    assert stopped(Search(warmup=4), rows, 0, 9.0, {}) == ""
    assert stopped(Search(warmup=3), rows, 0, 9.0, {}) != ""
    assert stopped(Search(warmup=3, keep=1), rows, 0, 9.0, {}) == ""


def test_a_small_design_goes_on_although_its_loss_is_high() -> None:
    """With several objectives the rung looks at fronts of the loss and of what is known before training."""
    search = Search(objective=["loss", "parameters"])
    rows = [row(i, 1.0 + i / 10, objectives={"parameters": 1000.0 - i}) for i in range(6)]
    assert stopped(search, rows, 0, 3.0, {"parameters": 2000.0}).endswith("lie on an earlier Pareto front")
    assert stopped(search, rows, 0, 3.0, {"parameters": 10.0}) == ""
    assert stopped(Search(objective=["loss", "forgetting"], forgetting="f"), rows, 0, 3.0, {}) != ""


def test_a_design_goes_on_that_forgets_less_although_its_loss_is_high() -> None:
    """What was measured at the rung counts there; a design of which it is not known is not compared."""
    search = Search(objective=["loss", "forgetting"], forgetting="f")
    rows = [row(i, 1.0 + i / 10, rung_costs=({"forgetting": 0.5},)) for i in range(6)]
    assert stopped(search, rows, 0, 3.0, {"forgetting": 0.6}).endswith("lie on an earlier Pareto front")
    assert stopped(search, rows, 0, 3.0, {"forgetting": 0.1}) == ""
    unknown = [row(i, 1.0 + i / 10) for i in range(6)]
    assert stopped(search, unknown, 0, 3.0, {"forgetting": 0.6}) == ""


def test_a_reason_says_a_metric_with_its_own_sign() -> None:
    rows = [row(i, -0.5 - i / 10) for i in range(6)]
    assert stopped(Search(objective="metric"), rows, 0, -0.2, {}) == (
        "held-out 0.2000 at the rung; the better 50% reach 0.8000"
    )


def test_a_later_rung_compares_those_that_reached_it() -> None:
    rows = [Row(i, "pruned", rung=1.0, levels=(1.0,)) for i in range(9)]
    rows += [Row(9 + i, "completed", rung=1.0, levels=(1.0, float(i))) for i in range(4)]
    search = Search(rung=[0.1, 0.3])
    assert stopped(search, rows, 1, 1.0, {}) == ""
    assert stopped(search, rows, 1, 2.0, {}).startswith("held-out 2.0000 at rung 2")


def test_audits_are_a_share_that_does_not_depend_on_the_order() -> None:
    search = Search(audit=0.25)
    chosen = [audited(search, f"{i:x}") for i in range(400)]
    assert chosen == [audited(search, f"{i:x}") for i in range(400)]
    assert 70 < sum(chosen) < 130
    assert not any(audited(Search(), f"{i:x}") for i in range(50))
    assert all(audited(Search(audit=1), f"{i:x}") for i in range(50))


def test_how_often_the_rung_was_wrong() -> None:
    rows = [row(0, 1.0, value=1.0, anchor="a"), row(1, 2.0, value=3.0), row(2, 3.0, value=2.0)]
    rows += [
        row(3, 4.0, value=0.5, audited=True),
        row(4, 5.0, value=9.0, audited=True),
        row(5, 6.0, "pruned"),
    ]
    found = fidelity(rows, 0.5)
    assert (found.trained, found.pairs, found.wrong) == (5, 10, 4)
    assert (found.audited, found.mistaken, found.best_missed) == (2, 1, 1)
    assert found.spearman == pytest.approx(0.3)
    assert "4 of 10 pairs" in in_words(found)
    assert (
        "Of 2 designs it stopped that were trained all the same, 1 ended among the better ones"
        in in_words(found)
    )
    assert in_words(fidelity(rows[:2], 0.5)) == ""


def test_the_front_leaves_out_what_breaks_a_constraint() -> None:
    rows = [
        Row(0, "completed", value=1.0, costs=(1.0, 5.0)),
        Row(1, "completed", value=0.5, costs=(0.5, 5.0), violations={"forgetting": 0.1}),
        Row(2, "completed", value=2.0, costs=(2.0, 1.0)),
        Row(3, "completed", value=3.0, costs=(3.0, 2.0)),
    ]
    assert [r.number for r in front(rows)] == [0, 2]

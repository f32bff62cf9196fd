"""What a study tells of tuning its rates: the grids that widened, what that cost and brought, whose rate moved."""

from __future__ import annotations

from typing import Any

import pytest

from ctxpeft.search.finals import Final, Finals, TaskFinal
from ctxpeft.search.outcome import RateResult, Row, TaskScore
from ctxpeft.search.rates import Rates
from ctxpeft.search.tuning import in_words, tuning

MATRIX = {
    "name": "v",
    "modules": [{"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}],
}
FIRST = {0.001: 4.0, 0.003: 3.0, 0.009: 5.0}
LOWER = {0.000333: 2.7, 0.001: 3.0, 0.003: 4.0, 0.009: 5.0}
IN_VAIN = {0.001: 5.0, 0.003: 4.0, 0.009: 3.0, 0.027: 3.5}
TWICE = {0.001: 5.0, 0.003: 4.0, 0.009: 3.0, 0.027: 2.0, 0.081: 1.5}


def grid(values: dict[float, float | None]) -> tuple[RateResult, ...]:
    """What a trial keeps of its rates."""
    return tuple(RateResult(rate, value) for rate, value in values.items())


def row(number: int, values: dict[float, float | None], **more: Any) -> Row:
    """A trained design on one task."""
    return Row(number, "completed", rates=grid(values), variant=MATRIX, **more)


def test_grids_that_widened_are_told_with_their_cost_and_gain() -> None:
    rows = [row(0, {**FIRST}), row(1, {**LOWER}), row(2, {**IN_VAIN}), row(3, {**TWICE})]
    rows.append(row(4, {0.001: 1.0}))  # one rate alone is no grid
    rows.append(row(5, {**LOWER}, same_as=1))
    found = tuning(rows, None, Rates())
    assert (found.grids, found.widened, found.moved, found.edge) == (4, 3, 2, 2)
    assert (found.runs, found.beyond) == (3 + 4 + 4 + 5, 1 + 1 + 2)
    assert found.gains == pytest.approx((1 - 2.7 / 3.0, 1 - 1.5 / 3.0))
    about = {"rates": Rates().model_dump(mode="json"), "objective": "loss"}
    said = in_words(rows, None, about)
    assert (
        "Of 4 grids of learning rates 3 had their best at the edge and were widened, which took 4 of 16"
        in said
    )
    assert "2 found a better rate there, at a loss 30.0% lower at the median. 2 end at an edge" in said
    assert "median" not in in_words(rows, None, {**about, "objective": "metric"})
    assert in_words(rows, None, {**about, "rates": {"widen": 0}}) == in_words(rows, None, {}) == ""


def test_a_rate_that_diverged_is_no_gain_and_a_grid_of_none_is_left_out() -> None:
    rows = [row(0, {0.001: 3.0, 0.003: None, 0.009: None, 0.000333: 3.5}), row(1, {0.001: None, 0.003: None})]
    found = tuning(rows, None, Rates())
    assert (found.grids, found.widened, found.moved) == (1, 1, 0)


def test_every_task_has_its_grid_and_finals_tell_whose_rate_moved() -> None:
    scores = (
        TaskScore("trec", grid({**FIRST}), 0.003, 3.0),
        TaskScore("sst2", grid({**LOWER}), 0.000333, 2.7),
    )
    rows = [Row(7, "completed", tasks=scores, variant=MATRIX)]
    tasks = [
        TaskFinal("trec", 0.001, "accuracy", [1.0], [0.5]),
        TaskFinal("sst2", 0.000333, "accuracy", [1.0], [0.5]),
    ]
    finals = Finals([1], 7, "test", [Final(7, "v", "", 10, 0.001, 1.0, [1.0], [0.5], tasks)], [])
    found = tuning(rows, finals, Rates())
    assert (found.grids, found.widened, found.retuned) == (2, 1, (2, 1))
    about = {"rates": Rates().model_dump(mode="json"), "objective": "loss", "retune": 1}
    assert in_words(rows, finals, about).endswith("for the fresh seeds, 1 of 2 rates moved.")
    same = Finals([1], 7, "test", [Final(7, "v", "", 10, 0.003, 1.0, [1.0], [0.5])], [])
    one = [row(7, {**FIRST}, rate=0.003)]
    assert "0 of 1 rates moved" in in_words(one, same, about)
    assert "moved" not in in_words(one, same, {**about, "retune": 0})

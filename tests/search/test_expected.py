"""The expected time: the sum over runs that the search then makes, with times that were measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ctxpeft.search.expected import Expected, TaskCost, expected, measure
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.settings import Search

COST = TaskCost("t", 0.5, 2.0, 1.0, 10.0, 20.0, (4, 10), 40, 100, 1000)


def test_every_run_is_counted() -> None:
    search = Search(trials=10, rung=[0.1, 0.25], keep=0.5, finalists=1, seeds=2, retune=2)
    rung = 3 * (2 + 4 * 0.5 + 1)
    second = 2 + 10 * 0.5 + 1
    full = 2 + 40 * 0.5 + 10
    found = expected([COST], search, anchors=2, rates=3, variant="v")
    assert found.anchors == pytest.approx(2 * (rung + second + full))
    assert found.designs == pytest.approx(10 * (rung + second / 2 + full / 4))
    assert found.finals == pytest.approx((1 + 2) * (2 * (2 + 40 * 0.5 + 10 + 20) + 3 * full))
    assert found.total == pytest.approx(found.anchors + found.designs + found.finals)
    assert replace(found, workers=2).total == pytest.approx(found.total / 2)


def test_what_is_not_asked_for_costs_nothing() -> None:
    alone = Search(trials=10, rung=0.1, keep=1, finalists=0, metrics=False)
    found = expected([COST, COST], alone, anchors=0, rates=1, variant="v")
    assert (found.anchors, found.finals) == (0, 0)
    assert found.designs == pytest.approx(10 * 2 * ((2 + 2 + 1) + (2 + 20 + 1)))
    by_metric = Search(trials=10, rung=0.1, keep=1, finalists=0, metrics=False, objective="metric")
    assert expected([COST], by_metric, 0, 1, "v").designs == pytest.approx(
        10 * ((2 + 2 + 10) + (2 + 20 + 10))
    )


def test_is_measured_on_the_model_and_leaves_nothing(tiny_job: Job, tmp_path: Path) -> None:
    job = replace(
        tiny_job,
        out=tmp_path / "study",
        space=with_settings(tiny_job.space, {"search": {"rung": [0.2, 0.5]}}),
    )
    found, facts = measure(job, workers=2)
    assert facts.query_scale is not None
    assert facts.examples is not None
    assert isinstance(found, Expected)
    (cost,) = found.costs
    assert (cost.rung_steps, cost.steps) == ((1, 3), 6)
    assert 0 < cost.rung_tokens < cost.tokens
    assert cost.step > 0
    assert cost.labels > 0
    assert found.variant == "prefix-tuning-plus"
    assert not (tmp_path / "study").exists()
    text = "\n".join(found.lines())
    assert "from 8 steps of prefix-tuning-plus timed on this machine" in text
    assert f"{cost.rung_tokens:,} of {cost.tokens:,} training tokens" in text
    assert "with 2 workers" in text


def test_what_was_guessed_of_the_data_is_told() -> None:
    noted = replace(COST, notes=("my.csv: the column 'review' is used as text",))
    text = "\n".join(expected([noted], Search(), anchors=0, rates=1, variant="v").lines())
    assert "    note: my.csv: the column 'review' is used as text" in text

"""What is trained once more on fresh seeds: the best designs and the anchors, at rates that are looked at again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ctxpeft.analysis.rates import next_to
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.learning import Learning
from ctxpeft.search.objective import variant_of
from ctxpeft.search.outcome import Row, front, ranking
from ctxpeft.training import RunResult


def finalists(rows: Sequence[Row], count: int) -> list[Row]:
    """The best designs beyond the anchors, then every anchor that finished; with several objectives, from the front."""
    designs = ranking(rows, anchors=False)
    if designs and len(designs[0].costs) > 1:
        designs = front(designs)
    designs = designs[:count]
    anchors = [row for row in rows if row.anchor and row.outcome == "completed"]
    return [*designs, *anchors] if designs else []


def fresh_seeds(laboratory: Laboratory) -> list[int]:
    """Seeds that no trial of the search used."""
    search = laboratory.job.search
    return [search.seed + 1 + i for i in range(search.seeds)]


def final_rates(laboratory: Laboratory, rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Every finalist on every task, whose rate is tuned once more in full."""
    for row in finalists(rows, laboratory.job.search.finalists):
        for task in laboratory.tasks:
            yield row, task


def final_rate(laboratory: Laboratory, row: Row, task: str) -> float:
    """The rate of the fresh runs: that of the search's full run, or one beside it which does better in full.

    The rung compares short runs, which like high rates. Up to `retune` lower ones are trained in full on the search's
    own seed while each does better than the one before; if the first does not, higher ones.
    """
    from ctxpeft.search.progress import Watch

    score, searched = row.score_of(task), _searched(laboratory, row, task)
    assert score.rate is not None
    tried = [r.rate for r in score.rates]
    learning = Learning(laboratory, Watch(), variant_of(row), row.anchor or row.name)
    best = score.rate, searched
    for down in (True, False):
        for _ in range(laboratory.job.search.retune):
            rate = next_to(tried, best[0], down)
            value = None if rate is None else learning.full(task, rate)
            if rate is None or value is None or value >= best[1]:
                break
            best = rate, value
        if best[0] != score.rate:
            break
    return best[0]


def _searched(laboratory: Laboratory, row: Row, task: str) -> float:
    """What rates are compared by, on a task, as the search's full run reached it: not the objective where that is
    another one."""
    search, score = laboratory.job.search, row.score_of(task)
    if not row.tasks and search.objectives[0] != search.quality:
        name = laboratory.metric if search.quality == "metric" else "token_loss"
        return laboratory.cost(search.quality, row.metrics[name])
    assert score.value is not None
    return score.value


def fresh_splits(laboratory: Laboratory, task: str) -> tuple[str, ...]:
    """The data a fresh run is scored on."""
    data = laboratory.benches[task].task
    elsewhere = ("ood",) if "ood" in laboratory.job.search.wanted else ()
    return ("validation", *(("test",) if data.test else ()), *elsewhere)


def fresh_runs(laboratory: Laboratory, rows: Sequence[Row]) -> Iterator[tuple[Row, str, int]]:
    """Every run of the finals: a finalist, a task, a fresh seed."""
    for row in finalists(rows, laboratory.job.search.finalists):
        for task in laboratory.tasks:
            for seed in fresh_seeds(laboratory):
                yield row, task, seed


def fresh_run(laboratory: Laboratory, row: Row, task: str, seed: int) -> RunResult:
    """One finalist on one task with one fresh seed, evaluated on test data too."""
    splits = fresh_splits(laboratory, task)
    rate = final_rate(laboratory, row, task)
    return laboratory.train(variant_of(row), rate, laboratory.steps(task), seed, splits, task=task)


def decided_by(laboratory: Laboratory, rows: Sequence[Row]) -> dict[str, Any]:
    """What decides the finals within a study: where it is the same, so are they, whoever trained them."""
    search = laboratory.job.search
    numbers = [row.number for row in finalists(rows, search.finalists)]
    return {"finalists": numbers, "seeds": fresh_seeds(laboratory), "retune": search.retune}

"""The fresh runs put together and compared; test data are read here, once, and decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, median_low
from typing import Any

import numpy as np

from ctxpeft.analysis.statistics import (
    as_matrix,
    paired_difference,
    pooled_difference,
)
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.finals import Final, Finals, TaskFinal, Versus, corrected, winner_of
from ctxpeft.search.fresh import final_rate, finalists, fresh_run, fresh_seeds, fresh_splits
from ctxpeft.search.learned import Learned, measured, metrics_of
from ctxpeft.search.measures import Name
from ctxpeft.search.objective import variant_of
from ctxpeft.search.outcome import Row
from ctxpeft.tasks import Evaluation
from ctxpeft.training import RunResult

RELATIVE = "relative_token_loss"


def run_finals(laboratory: Laboratory, rows: Sequence[Row], say: Callable[[str], None]) -> Finals | None:
    """Train the finalists on fresh seeds and compare. None where there is nothing to compare."""
    chosen = finalists(rows, laboratory.job.search.finalists)
    seeds = fresh_seeds(laboratory)
    tested = all(bench.task.test for bench in laboratory.benches.values())
    split = "test" if tested else "validation"
    left_out: list[str] = []
    methods: list[Final] = []
    evaluations: dict[int, list[list[Evaluation]]] = {}
    for index, row in enumerate(chosen):
        name = row.anchor or row.name
        count = len(seeds) * len(laboratory.tasks)
        say(f"fresh seeds, {index + 1} of {len(chosen)}: {name}, {count} runs")
        results = [[fresh_run(laboratory, row, task, seed) for seed in seeds] for task in laboratory.tasks]
        if any("validation" not in r.evaluations for task in results for r in task):
            left_out.append(name)
            continue
        evaluations[row.number] = [[r.evaluations[split] for r in task] for task in results]
        methods.append(_final(laboratory, row, results, evaluations[row.number]))
    winner = winner_of(methods)
    if winner is None:
        return None
    ours = evaluations[winner.number]
    anchors = [(m.name, evaluations[m.number]) for m in methods if m.anchor]
    versus = [_versus(laboratory, name, ours, theirs, split) for name, theirs in anchors]
    by_task = [
        replace(_versus_on_task(name, our, their, split), task=task)
        for name, theirs in anchors
        for task, our, their in zip(laboratory.tasks, ours, theirs, strict=True)
        if len(laboratory.tasks) > 1
    ]
    return Finals(seeds, winner.number, split, methods, corrected(versus), left_out, corrected(by_task))


def _final(
    laboratory: Laboratory,
    row: Row,
    results: Sequence[Sequence[RunResult]],
    evaluations: Sequence[Sequence[Evaluation]],
) -> Final:
    """One finalist's runs (tasks, seeds) put together."""
    assert row.value is not None
    first = laboratory.job.search.objectives[0]
    rates = [final_rate(laboratory, row, task) for task in laboratory.tasks]
    scores = [[laboratory.score(r.evaluations["validation"]) for r in task] for task in results]
    over_tasks = [laboratory.joint(seed) for seed in zip(*scores, strict=True)]
    tasks = [
        TaskFinal(task, rate, es[0].primary, values, [e.value for e in es])
        for task, rate, values, es in zip(laboratory.tasks, rates, scores, evaluations, strict=True)
    ]
    objectives = _objectives(laboratory, row, rates, results, over_tasks)
    values, _ = _values(laboratory, evaluations)
    test = [fmean(seed) for seed in zip(*values, strict=True)]
    return Final(
        row.number,
        row.anchor or row.name,
        row.anchor,
        row.parameters,
        median_low(rates),
        row.value,
        [laboratory.cost(first, value) for value in objectives[first]],
        test,
        tasks if len(tasks) > 1 else [],
        objectives,
        _violations(laboratory, objectives),
    )


def _objectives(
    laboratory: Laboratory,
    row: Row,
    rates: Sequence[float],
    results: Sequence[Sequence[RunResult]],
    quality: Sequence[float],
) -> dict[Name, list[float]]:
    """Everything the search wants of a finalist, a value a seed; what training does not decide as it was known."""
    search, variant = laboratory.job.search, variant_of(row)
    found: dict[Name, list[float]] = {name: [] for name in search.wanted}
    for index, (seed, reached) in enumerate(zip(fresh_seeds(laboratory), quality, strict=True)):
        runs = [
            Learned(
                metrics_of(task_results[index]),
                laboratory.folder(
                    variant, rate, laboratory.steps(task), seed, fresh_splits(laboratory, task), task=task
                ),
            )
            for task, rate, task_results in zip(laboratory.tasks, rates, results, strict=True)
        ]
        now = row.objectives | measured(laboratory, search.wanted, runs, reached)
        for name, values in found.items():
            values.append(now[name])
    return found


def _violations(laboratory: Laboratory, objectives: dict[Name, list[float]]) -> dict[Name, float]:
    """By how much the means over fresh seeds break which constraint."""
    constraints = laboratory.job.search.constraints
    found = {name: laboratory.excess(name, fmean(objectives[name])) for name in constraints}
    return {name: excess for name, excess in found.items() if excess > 0}


def _values(
    laboratory: Laboratory, evaluations: Sequence[Sequence[Evaluation]]
) -> tuple[list[list[float]], str]:
    """What tasks share (tasks, seeds) and its name: the main metric, else the token loss against the frozen model's."""
    names = {es[0].primary for es in evaluations}
    if len(names) == 1:
        return [[e.value for e in es] for es in evaluations], names.pop()
    assert laboratory.references is not None
    return [
        [e.metrics["token_loss"] / laboratory.references[task] for e in es]
        for task, es in zip(laboratory.tasks, evaluations, strict=True)
    ], RELATIVE


def _versus(
    laboratory: Laboratory,
    anchor: str,
    ours: Sequence[Sequence[Evaluation]],
    theirs: Sequence[Sequence[Evaluation]],
    split: str,
) -> Versus:
    """Over all tasks."""
    if len(ours) == 1:
        return _versus_on_task(anchor, ours[0], theirs[0], split)
    (our_values, metric), (their_values, _) = _values(laboratory, ours), _values(laboratory, theirs)
    groups = []
    for task, our, their in zip(laboratory.tasks, ours, theirs, strict=True):
        (a, weights, _), (b, _, _) = as_matrix(our), as_matrix(their)
        if metric == RELATIVE:
            assert laboratory.references is not None
            a, b = (_token_losses(es) / laboratory.references[task] for es in (our, their))
        groups.append((a, b, weights))
    return Versus(
        anchor,
        split,
        metric,
        metric != RELATIVE and ours[0][0].greater_is_better,
        fmean(fmean(task) for task in our_values),
        fmean(fmean(task) for task in their_values),
        pooled_difference(groups),
    )


def _token_losses(runs: Sequence[Evaluation]) -> np.ndarray[Any, Any]:
    return np.array([[record.token_loss for record in run.records] for run in runs])


def _versus_on_task(
    anchor: str, winner: Sequence[Evaluation], other: Sequence[Evaluation], split: str
) -> Versus:
    first = winner[0]
    ours, weights, _ = as_matrix(winner)
    theirs, _, _ = as_matrix(other)
    return Versus(
        anchor,
        split,
        first.primary,
        first.greater_is_better,
        fmean(e.value for e in winner),
        fmean(e.value for e in other),
        paired_difference(ours, theirs, weights),
    )

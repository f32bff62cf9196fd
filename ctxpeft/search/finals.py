"""The best designs and the anchors once more, on fresh seeds; test data are read here, once, and decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median_low
from typing import Any

import numpy as np

from ctxpeft.analysis.rates import next_to
from ctxpeft.analysis.statistics import (
    Interval,
    as_matrix,
    holm,
    paired_difference,
    pooled_difference,
)
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.learned import Learned, measured, metrics_of
from ctxpeft.search.learning import Learning
from ctxpeft.search.measures import Name
from ctxpeft.search.objective import variant_of
from ctxpeft.search.outcome import Row, front, ranking
from ctxpeft.tasks import Evaluation
from ctxpeft.training import RunResult

ALPHA = 0.05
RELATIVE = "relative_token_loss"


@dataclass(frozen=True)
class TaskFinal:
    """One method on one of several tasks: its rate, its objective on validation and its main metric, a seed each."""

    task: str
    rate: float
    metric: str
    validation: list[float]
    test: list[float]


@dataclass(frozen=True)
class Final:
    """One method on the fresh seeds. `validation` is the first objective of each seed, smaller is better, `test` the
    main metric of each.

    searched: the objective of the search's own run; how far the fresh ones fall behind it is the winner's curse.
    tasks: one entry a task where there are several; `test` is then the mean over tasks of what they share, the main
    metric or the token loss relative to the frozen model.
    objectives: everything the search wants, by name, each seed with its own sign. violations: by how much the mean
    breaks which constraint.
    """

    number: int
    name: str
    anchor: str
    parameters: int | None
    rate: float
    searched: float
    validation: list[float]
    test: list[float]
    tasks: list[TaskFinal] = field(default_factory=list)
    objectives: dict[Name, list[float]] = field(default_factory=dict)
    violations: dict[Name, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean objective over the fresh seeds."""
        return fmean(self.validation)


@dataclass(frozen=True)
class Versus:
    """The winner against one anchor: `interval` is of winner minus anchor in the main metric of `split`.

    task: the task's name in a comparison on one of several; empty where it is over all there are.
    adjusted: the p-value, corrected for the number of comparisons of its kind by Holm's method.
    """

    anchor: str
    split: str
    metric: str
    greater_is_better: bool
    winner: float
    other: float
    interval: Interval
    task: str = ""
    adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not significant`: the corrected p-value at 0.05; the interval where there is none."""
        significant = self.interval.significant if self.adjusted is None else self.adjusted < ALPHA
        if not significant:
            return "not significant"
        return "better" if (self.interval.mean > 0) == self.greater_is_better else "worse"


@dataclass(frozen=True)
class Finals:
    """What the fresh seeds say. `winner` is the trial number, chosen on validation data alone.

    versus: the winner against each anchor, over all tasks. by_task: the same on each of several tasks.
    left_out: methods of which a fresh run diverged.
    """

    seeds: list[int]
    winner: int
    split: str
    methods: list[Final]
    versus: list[Versus]
    left_out: list[str] = field(default_factory=list)
    by_task: list[Versus] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Plain data, verdicts included."""
        data = asdict(self)
        for key in ("versus", "by_task"):
            for item, versus in zip(data[key], getattr(self, key), strict=True):
                item["verdict"] = versus.verdict
        return data

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Finals:
        """What `plain` gave."""
        methods = [
            Final(**{**method, "tasks": [TaskFinal(**task) for task in method.get("tasks", ())]})
            for method in data["methods"]
        ]
        versus, by_task = (
            [_versus_from(item) for item in data.get(key, ())] for key in ("versus", "by_task")
        )
        return cls(**{**data, "methods": methods, "versus": versus, "by_task": by_task})


def _versus_from(item: dict[str, Any]) -> Versus:
    kept = {key: value for key, value in item.items() if key != "verdict"}
    return Versus(**{**kept, "interval": Interval(**item["interval"])})


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


def winner_of(methods: Sequence[Final]) -> Final | None:
    """The design with the best mean of the first objective; one that breaks a constraint only where all do."""
    designs = [method for method in methods if not method.anchor]
    return min(designs, key=lambda m: (bool(m.violations), m.mean, m.number), default=None)


def corrected(versus: Sequence[Versus]) -> list[Versus]:
    """The p-values corrected for the number of comparisons."""
    adjusted = holm([v.interval.p or 0.0 for v in versus])
    return [replace(v, adjusted=p) for v, p in zip(versus, adjusted, strict=True)]


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

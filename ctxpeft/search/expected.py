"""How long a search will take, from a few steps of its first anchor on the real model and data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxpeft.search.progress import clock
from ctxpeft.search.settings import Search

if TYPE_CHECKING:
    from ctxpeft.search.archive import Archive
    from ctxpeft.search.bench import Laboratory
    from ctxpeft.search.job import Job
    from ctxpeft.spec.guide import Facts
    from ctxpeft.spec.variant import Variant

SHORT, LONG = 2, 8  # steps of the two runs whose difference is the time of a step
RETUNED = 1.5  # rates tried a `retune`: one if the lower one is better, else a higher one too
SAMPLE = 16  # examples an evaluation is timed on
PATIENT = "patience is left out of the time: what it measures during runs, and that it may end them sooner"


@dataclass(frozen=True)
class TaskCost:
    """Seconds on one task: a training step; what a run takes beside its steps; evaluating the validation data by loss
    alone and with every label; evaluating the test data. Steps and training tokens to the first rung and in full.
    notes: what was guessed or left out as the data were read.
    """

    task: str
    step: float
    run: float
    loss: float
    labels: float
    test: float
    rung_steps: tuple[int, ...]
    steps: int
    rung_tokens: int
    tokens: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """Seconds by part of the search, for one worker. variant: what was timed."""

    variant: str
    costs: list[TaskCost]
    anchors: float
    designs: float
    finals: float
    workers: int = 1

    @property
    def total(self) -> float:
        """Seconds in all, shared among the workers as if each had cores of its own."""
        return (self.anchors + self.designs + self.finals) / self.workers

    def plain(self) -> dict[str, Any]:
        """Plain data, the sum included."""
        return asdict(self) | {"total": self.total}

    def lines(self) -> Iterator[str]:
        """The numbers in words."""
        yield f"expected time, from {LONG} steps of {self.variant} timed on this machine:"
        for cost in self.costs:
            yield (
                f"  {cost.task}: {cost.step:.3f} s a step; the rung is {cost.rung_steps[0]:,} of {cost.steps:,} steps, "
                f"{cost.rung_tokens:,} of {cost.tokens:,} training tokens"
            )
            yield from (f"    note: {note}" for note in cost.notes)
        yield (
            f"  anchors {clock(self.anchors)}, designs {clock(self.designs)}, fresh seeds {clock(self.finals)}; "
            f"{clock(self.total)} in all with {self.workers} worker{'s' if self.workers > 1 else ''}"
        )


def measure(job: Job, workers: int = 1, begin: Archive | None = None) -> tuple[Expected, Facts]:
    """Load the model and the data, train a few steps of the first anchor (prefix-tuning-plus where there is
    none) on each task, time both kinds of evaluation; and what the construction guide is told of both. Nothing is
    left behind.

    Raises SpecError where the study cannot go on from the archive `begin`.
    """
    from ctxpeft.search.storage import check_archive
    from ctxpeft.spec.load import load_variant

    with tempfile.TemporaryDirectory() as scratch:
        laboratory = replace(job, out=Path(scratch)).open()
        if begin is not None:
            check_archive(begin, laboratory.describe(), len(job.search.objectives))
        patient = laboratory.config.patience is not None
        if patient:
            laboratory.config = laboratory.config.model_copy(update={"patience": None, "eval_every": 0})
        names = job.space.file.anchors
        variant = laboratory.anchor(names[0]).variant if names else load_variant("prefix-tuning-plus")
        rates = job.space.file.rates.of(variant)
        count = len(rates) + (1 if len(rates) > 1 and job.space.file.rates.widen else 0)
        costs = [_cost(laboratory, task, variant, rates[0]) for task in laboratory.tasks]
        if patient:
            costs = [replace(cost, notes=(*cost.notes, PATIENT)) for cost in costs]
        facts = laboratory.facts
    return expected(costs, job.search, len(names), count, variant.name, workers), facts


def expected(
    costs: list[TaskCost], search: Search, anchors: int, rates: int, variant: str, workers: int = 1
) -> Expected:
    """The seconds of a whole search: every design at every rate to the first rung, `keep` of them past each rung.

    rates: how many a design begins with; where the grid widens, one more is reckoned. Finalists are reckoned to try one
    and a half times `retune` rates in full.
    """
    levels = [sum(_to_rung(c, level, rates, search) for c in costs) for level in range(len(search.rungs))]
    full = sum(
        c.run + c.steps * c.step + (c.labels if search.metrics else _rung_evaluation(c, search))
        for c in costs
    )
    design = sum(cost * search.keep**level for level, cost in enumerate(levels))
    design += full * search.keep ** len(levels)
    fresh = sum(c.run + c.steps * c.step + c.labels + c.test for c in costs)
    finals = 0.0
    if search.finalists:
        finals = (search.finalists + anchors) * (search.seeds * fresh + RETUNED * search.retune * full)
    return Expected(variant, costs, anchors * (sum(levels) + full), search.trials * design, finals, workers)


def _to_rung(cost: TaskCost, level: int, rates: int, search: Search) -> float:
    once = cost.run + cost.rung_steps[level] * cost.step + _rung_evaluation(cost, search)
    return once * (1 if level else rates)


def _rung_evaluation(cost: TaskCost, search: Search) -> float:
    return cost.labels if search.quality == "metric" else cost.loss


def _cost(laboratory: Laboratory, task: str, variant: Variant, rate: float) -> TaskCost:
    bench = laboratory.benches[task]

    def run(steps: int, seed: int) -> float:
        began = time.perf_counter()
        laboratory.train(variant, rate, steps, seed, (), task=task)
        return time.perf_counter() - began

    run(1, 0)  # the first run pays for what later ones find ready
    short, long = run(SHORT, 1), run(LONG, 2)
    step = max(long - short, 1e-6) / (LONG - SHORT)
    loss, labels = (_evaluation(laboratory, task, whole) for whole in (False, True))
    return TaskCost(
        task,
        step,
        max(short - SHORT * step, 0.0),
        loss * len(bench.task.validation),
        labels * len(bench.task.validation),
        labels * len(bench.task.test),
        tuple(laboratory.rung_steps(task, level) for level in range(len(laboratory.job.search.rungs))),
        laboratory.steps(task),
        laboratory.tokens(task, laboratory.rung_steps(task)),
        laboratory.tokens(task, laboratory.steps(task)),
        bench.notes,
    )


def _evaluation(laboratory: Laboratory, task: str, labels: bool) -> float:
    """Seconds an example."""
    from ctxpeft.tasks import evaluate

    bench = laboratory.benches[task]
    examples = bench.task.validation[:SAMPLE]
    began = time.perf_counter()
    evaluate(laboratory.base.model, bench.encoder, examples, 0, labels)
    return (time.perf_counter() - began) / len(examples)

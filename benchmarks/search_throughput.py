"""`python -m benchmarks.search_throughput`: designs evaluated per hour by the search and by the obvious loop.

The obvious loop loads the model and the data for every run, trains with the Trainer and scores every label. Each
further row of the table adds one mechanism of the search: the base and the encoded data are kept; runs that only rank
are scored by their held-out loss; what the layers below the lowest adapted one give is kept for every batch. Two more
rows add what the search leaves off or has not: the rates of a design are trained side by side at the rung, and those of
`--group` designs are. All rows try the same designs at the same rates and stop the same share of them at the rung. What
is counted is CPU time of this process, interleaved by group of designs, so that a busy machine does not tilt it.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment
from ctxpeft.errors import CtxpeftError
from ctxpeft.search.bench import Laboratory, loss_of
from ctxpeft.search.design import sample
from ctxpeft.search.job import Job, tasks_of, with_settings
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.search.spacefile import load_space
from ctxpeft.spec.variant import Variant
from ctxpeft.training import RunResult, run_beside

Rates = Mapping[str, Sequence[float]]
Runs = Callable[[Sequence[Variant], Rates, int], list[list[RunResult]]]
"""Variants, the rates of each by its name, steps: the runs of every variant."""


@dataclass
class Row:
    """What one way of searching took. rung, full: CPU seconds by design; values: what the design reached."""

    name: str
    runs: Runs
    rung: list[float]
    full: list[float]
    ranks: list[float]
    values: list[float]

    def total(self, keep: float) -> float:
        """CPU seconds for all designs if `keep` of them, the best at the rung, are trained to the end."""
        order = sorted(range(len(self.ranks)), key=lambda i: self.ranks[i])
        going = order[: max(1, math.ceil(keep * len(order)))]
        return sum(self.rung) + sum(self.full[i] for i in going)


def rows(job: Job, scratch: Path) -> tuple[list[Row], Laboratory]:
    """The ways, from the obvious loop to the search."""
    without = replace(
        job.space,
        file=job.space.file.model_copy(update={"search": job.search.model_copy(update={"cache": 0})}),
    )
    kept = Laboratory(replace(job, space=without, out=scratch / "kept"))
    caching = Laboratory(replace(job, out=scratch / "caching"))
    seed = job.search.seed

    def one_by_one(lab: Callable[[], Laboratory], labels: bool) -> Runs:
        return lambda variants, rates, steps: [
            [lab().train(variant, rate, steps, seed, labels=labels) for rate in rates[variant.name]]
            for variant in variants
        ]

    def loaded() -> Laboratory:
        return Laboratory(replace(job, space=without, out=scratch / "loaded"))

    def together(lab: Laboratory) -> Runs:
        return lambda variants, rates, steps: [
            lab.train_rates(variant, rates[variant.name], steps, seed, labels=False) for variant in variants
        ]

    ways = {
        "load, train, score, for every run": one_by_one(loaded, labels=True),
        "+ base and data kept": one_by_one(lambda: kept, labels=True),
        "+ scored by held-out loss": one_by_one(lambda: kept, labels=False),
        "+ states below the lowest layer kept": one_by_one(lambda: caching, labels=False),
        "+ rates side by side at the rung": together(caching),
        "+ designs side by side at the rung": lambda *asked: all_in_one(caching, *asked),
    }
    return [Row(name, runs, [], [], [], []) for name, runs in ways.items()], kept


def all_in_one(
    laboratory: Laboratory, variants: Sequence[Variant], rates: Rates, steps: int
) -> list[list[RunResult]]:
    """All runs of all variants in one pass a step; a single run as the search trains it."""
    task, seed = laboratory.tasks[0], laboratory.job.search.seed
    pairs = [(variant, rate) for variant in variants for rate in rates[variant.name]]
    if len(pairs) == 1:
        return [[laboratory.train(*pairs[0], steps, seed, labels=False)]]
    config = laboratory.config.model_copy(update={"steps": steps, "epochs": None, "seed": seed})
    found = run_beside(
        laboratory.benches[task],
        [variant for variant, _ in pairs],
        [config.model_copy(update={"learning_rate": rate}) for _, rate in pairs],
        out=[laboratory.folder(*pair, steps, seed, labels=False, beside=True) for pair in pairs],
        labels=False,
    )
    of = iter(found)
    return [[next(of) for _ in rates[variant.name]] for variant in variants]


def designs(laboratory: Laboratory, count: int, seed: int) -> list[Variant]:
    """The first distinct designs of the space that meet its budget."""
    found: dict[str, Variant] = {}
    job = laboratory.job
    for attempt in range(200 * count):
        try:
            design = sample(
                job.space.positions,
                RandomChooser(seed * 100_000 + attempt),
                laboratory.counter,
                laboratory.target,
                job.search.guide,
            )
        except InfeasibleError:
            continue
        found.setdefault(design.variant.fingerprint(), design.variant)
        if len(found) == count:
            break
    return list(found.values())


def measure(row: Row, variants: Sequence[Variant], rates: Rates, rung: int, full: int, scratch: Path) -> None:
    """Some designs in one way: the rates of all to the rung, the best of each to the end."""

    def reached(result: RunResult) -> float:
        evaluation = result.evaluations.get("validation")
        return loss_of(evaluation) if evaluation else math.inf

    for folder in ("kept", "loaded", "caching"):  # nothing is read from an earlier run
        shutil.rmtree(scratch / folder / "runs", ignore_errors=True)
    began = time.process_time()
    found = row.runs(variants, rates, rung)
    seconds = time.process_time() - began
    for variant, results in zip(variants, found, strict=True):
        at_rung = [reached(result) for result in results]
        row.rung.append(seconds / len(variants))
        row.ranks.append(min(at_rung))
        best = rates[variant.name][at_rung.index(min(at_rung))]
        began = time.process_time()
        row.values.append(reached(row.runs([variant], {variant.name: [best]}, full)[0][0]))
        row.full.append(time.process_time() - began)


def report(found: Sequence[Row], keep: float) -> list[dict[str, Any]]:
    """The table as data: by way, designs per CPU hour with and without the rung, and what each step gains."""
    first = found[0]
    table, before = [], first.total(keep)
    for row in found:
        seconds = row.total(keep)
        gaps = [abs(a - b) / max(abs(b), 1e-9) for a, b in zip(row.values, first.values, strict=True)]
        table.append(
            {
                "way": row.name,
                "rung_s": round(statistics.mean(row.rung), 2),
                "full_s": round(statistics.mean(row.full), 2),
                "designs_per_hour": round(3600 * len(row.rung) / seconds, 1),
                "without_rung": round(3600 * len(row.rung) / row.total(1.0), 1),
                "step": round(before / seconds, 3),
                "in_all": round(first.total(keep) / seconds, 3),
                "same_order": sorted(range(len(gaps)), key=row.values.__getitem__)
                == sorted(range(len(gaps)), key=first.values.__getitem__),
                "largest_difference": float(f"{max(gaps):.2g}"),
            }
        )
        before = seconds
    return table


def printed(table: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    lines = [
        "| way | rung, s | full run, s | designs/h | without the rung | gain of the step | in all | same ranking |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        same = f"{'yes' if row['same_order'] else 'no'} ({row['largest_difference']:.0e})"
        lines.append(
            f"| {row['way']} | {row['rung_s']} | {row['full_s']} | {row['designs_per_hour']} | {row['without_rung']} "
            f"| {row['step']:.2f}x | {row['in_all']:.2f}x | {same} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, print the table and write `--out`. Exit code 2 for a mistake in what was given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_throughput", description=__doc__)
    parser.add_argument("--space", default="quickstart", help="a shipped space or a file")
    parser.add_argument("--model", help="the space's own if it names one")
    parser.add_argument("--task", help="the space's own if it names one")
    parser.add_argument("--designs", type=int, default=6)
    parser.add_argument("--group", type=int, default=2, help="designs that the last way trains side by side")
    parser.add_argument("--steps", type=int, help="of a full run; the space's own if left out")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--validation-limit", type=int, help="held-out examples; the space's own if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", type=int, default=0, help="only the last so many rows; 0 for all")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        space = load_space(options.space)
        training = {"steps": options.steps, "batch_size": options.batch_size}
        settings = {"training": {k: v for k, v in training.items() if v}, "search": {"together": True}}
        if options.validation_limit:
            settings["data"] = {"validation_limit": options.validation_limit}
        space = with_settings(space, settings)
        tasks = tasks_of(space, [options.task] if options.task else [], [], [])
        model = options.model or space.file.model
        if model is None:
            raise CtxpeftError(f"the space {options.space} names no model: give one with --model")
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            found, laboratory = rows(Job(space, model, tasks[:1], scratch, "throughput"), scratch)
            found = found[-options.ways :]
            task = laboratory.tasks[0]
            chosen = designs(laboratory, options.designs, options.seed)
            rates = {variant.name: space.file.rates.of(variant) for variant in chosen}
            for first in range(0, len(chosen), options.group):
                group = chosen[first : first + options.group]
                names = ", ".join(variant.name for variant in group)
                print(f"designs from {first + 1} of {len(chosen)}: {names}", file=sys.stderr, flush=True)
                for row in found:
                    measure(row, group, rates, laboratory.rung_steps(task), laboratory.steps(task), scratch)
    except CtxpeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = report(found, space.file.search.keep)
    print(printed(table))
    if options.out is not None:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k != "out"}
        data = {"environment": environment(laboratory.base.device), "settings": settings, "table": table}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run a table: everything resumes, and a second run of a finished one only reads it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.checks import file, training_config
from benchmarks.evidence.prepare import behind, fairytale_questions, read, write
from benchmarks.evidence.tables import Size, Table
from ctxpeft.analysis.budget import at_budget
from ctxpeft.analysis.compare import compare
from ctxpeft.analysis.comparison import Comparison
from ctxpeft.analysis.curve import Curve, data_curve
from ctxpeft.tasks import TaskSpec, build_task, load_task, on_files, with_settings
from ctxpeft.training import (
    Base,
    Bench,
    Method,
    Silent,
    count_parameters,
    load_base,
    load_method,
    prepare,
)
from ctxpeft.training._base import DType

DILUTION_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
LONG_LENGTHS = (*DILUTION_LENGTHS, 256)
WINDOWS = 32
UNRELATED_TEXTS = 100
AGAINST = "against"
"""The folder of the comparison with a second reference, beside the runs."""


class Log:
    """One line a run on standard error, with the time: what a log of many hours should hold."""

    def note(self, text: str) -> None:
        """The line."""
        print(f"{time.strftime('%m-%d %H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def start(self, title: str, steps: int) -> None:
        """A run begins."""
        self.note(f"{title}: {steps} steps")

    def update(self, step: int, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def run_table(
    table: Table,
    model: str,
    dtype: DType,
    data_root: Path,
    out: Path,
    log: Log,
) -> None:
    """All sizes of one table into `out/MODEL/TABLE/SIZE`, what is found there kept.

    Raises:
        SpecError, DataError: see `check`; and what `compare` raises.
    """
    folder = out / Path(model).name / table.name
    subject = Subject(table, model, dtype, data_root, log)
    config = training_config(table)
    options: dict[str, Any] = {"seeds": table.seeds, "config": config, "lr_sweep": True, "reporter": log}
    for size in table.sizes:
        log.note(f"{table.name}, {size} size, on {Path(model).name}")
        if table.behind:
            found, places = {}, table.places(folder / size)
            for words, part in places.items():
                bench = subject.bench(_behind(table, data_root, folder, words))
                methods = subject.methods(bench, size)
                found[words] = compare(bench, methods, part, **options)
                if table.dilution and words == max(places):
                    _dilution(bench, found[words], part, LONG_LENGTHS)
            Curve.of(str(table.axis), found).write(folder / size)
            continue
        bench = subject.bench(_spec(table, data_root, folder))
        methods = subject.methods(bench, size)
        if table.per_class:
            data_curve(bench, methods, folder / size, table.per_class, **options)
            continue
        result = compare(bench, methods, folder / size, **options)
        first = [method for method in methods if method.name == table.against]
        if first:
            again = {**options, "reporter": Silent(), "runs": folder / size / "runs"}
            rest = [method for method in methods if method.name != table.against]
            compare(bench, first + rest, folder / size / AGAINST, **again)
        if table.dilution:
            _dilution(bench, result, folder / size, DILUTION_LENGTHS)


@dataclass
class Subject:
    """A table on one model, which is loaded once."""

    table: Table
    model: str
    dtype: DType
    data_root: Path
    log: Log
    base: Base | None = None

    def bench(self, spec: TaskSpec) -> Bench:
        """The task on the model, with the unrelated text of the table."""
        task = build_task(with_settings(spec, self.table.settings))
        if self.base is None:
            classes = len(task.labels) if task.spec.head == "classifier" else None
            self.base = load_base(self.model, self.dtype, classes=classes, pooling=task.spec.pooling)
        if not self.table.unrelated:
            return prepare(self.base, task)
        text = {
            "name": "unrelated",
            "kind": "language_modelling",
            "test": [file(self.data_root, name) for name in self.table.unrelated],
            "test_limit": UNRELATED_TEXTS,
            "max_length": task.spec.max_length,
        }
        return prepare(self.base, task, {"unrelated": build_task(load_task(text))})

    def methods(self, bench: Bench, size: Size) -> list[Method]:
        """The methods of the table, at their own size or at that of its budget."""
        methods = [entry.method() for entry in self.table.entries(size)]
        if size == "default":
            return methods
        model = bench.base.model
        sized = at_budget(model, methods, count_parameters(model, load_method(self.table.budget))[0])
        for one in sized:
            self.log.note(one.note)
        return [one.method for one in sized]


def _spec(table: Table, data_root: Path, folder: Path) -> TaskSpec:
    """The task on the table's files; questions are joined to their stories, once, in `folder/data`."""
    files = [[file(data_root, name) for name in names] for names in (table.train, table.test)]
    if table.stories:
        stories = [Path(file(data_root, name)) for name in table.stories]
        for names in files:
            for place, name in enumerate(names):
                path = folder / "data" / Path(name).name
                write(path, fairytale_questions(Path(name), stories))
                names[place] = str(path)
    return on_files(load_task(table.task), *files)


def _behind(table: Table, data_root: Path, folder: Path, words: int) -> TaskSpec:
    """The task with so many words of the text before every input, from files written once."""
    assert table.behind is not None
    text = " ".join(str(row["text"]) for row in read(Path(file(data_root, table.behind.text))))
    written: list[list[str]] = []
    for split, names in (("train", table.train), ("test", table.test)):
        path = folder / "data" / f"{split}-{words}.jsonl"
        rows = [row for name in names for row in read(Path(file(data_root, name)))]
        write(path, behind(rows, text, words))
        written.append([str(path)])
    spec = on_files(load_task(table.task), *written)
    return with_settings(spec, {"template": "{context}\n" + str(spec.template)}) if words else spec


def _dilution(bench: Bench, result: Comparison, folder: Path, lengths: Sequence[int]) -> None:
    """What the memories of the first seed's adapters keep as the input grows, on the task's own inputs."""
    import ctxpeft
    from ctxpeft.analysis.diagnose import dilution
    from ctxpeft.analysis.diagnose._texts import windows
    from ctxpeft.hosts.handle import Handle

    texts = [example.text for example in (*bench.task.test, *bench.task.train)]
    ids = windows(bench.base.tokenizer, texts, max(lengths), WINDOWS)
    handles: dict[str, Handle] = {}
    try:
        for place, entry in enumerate(result.entries):
            runs = folder / "runs" / f"{entry.name}-{entry.fingerprint[:8]}"
            found = sorted(runs.glob(f"seed-{result.seeds[0]}-*/adapter"))
            if found and (found[0] / "adapter.safetensors").is_file():
                handle = ctxpeft.load(bench.base.model, found[0], name=f"adapter-{place}")
                if isinstance(handle, Handle):
                    handles[entry.name] = handle
                else:  # a tuner of HF PEFT, which has no memory
                    handle.detach()
        dilution(handles, ids, lengths).write(folder)
    finally:
        for handle in handles.values():
            handle.detach()

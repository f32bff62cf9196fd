"""Run a table: everything resumes, and a second run of a finished one only reads it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.evidence.prepare import behind, read, write
from benchmarks.evidence.tables import Size, Table
from ctxpeft.analysis.budget import at_budget
from ctxpeft.analysis.compare import compare
from ctxpeft.analysis.comparison import Comparison
from ctxpeft.analysis.curve import Curve, data_curve
from ctxpeft.errors import DataError
from ctxpeft.tasks import TaskData, TaskSpec, build_task, load_task, on_files, with_settings
from ctxpeft.training import (
    Base,
    Bench,
    Method,
    TrainingConfig,
    count_parameters,
    load_base,
    load_method,
    prepare,
)

DILUTION_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
WINDOWS = 32
UNRELATED_TEXTS = 100


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
    table: Table, model: str, data_root: Path, out: Path, overrides: Mapping[str, Any], log: Log
) -> None:
    """All sizes of one table into `out/MODEL/TABLE/SIZE`, what is found there kept.

    overrides: `steps`, `seeds`, and settings of the task, for a short trial.

    Raises:
        DataError: a file is not under the data root; and what `compare` raises.
    """
    folder = out / Path(model).name / table.name
    given = {k: v for k, v in overrides.items() if v is not None}
    steps, seeds = int(given.pop("steps", table.steps)), int(given.pop("seeds", table.seeds))
    settings = {**table.settings, **given}
    config = TrainingConfig.model_validate({**table.training, "steps": steps})
    options: dict[str, Any] = {"seeds": seeds, "config": config, "lr_sweep": True, "reporter": log}
    base: Base | None = None
    for size in table.sizes:
        log.note(f"{table.name}, {size} size, on {Path(model).name}")
        if table.behind:
            found = {}
            for words in table.behind.words:
                bench = _bench(
                    base, model, table, _behind(table, data_root, folder, words), settings, data_root
                )
                base = bench.base
                methods = _methods(base, table, size, log)
                found[words] = compare(bench, methods, folder / size / f"words-{words}", **options)
            Curve.of("words of a story before the question", found).write(folder / size)
            continue
        bench = _bench(base, model, table, _spec(table, data_root), settings, data_root)
        base = bench.base
        methods = _methods(base, table, size, log)
        if table.per_class:
            data_curve(bench, methods, folder / size, table.per_class, **options)
            continue
        result = compare(bench, methods, folder / size, **options)
        if table.dilution:
            _dilution(bench, result, folder / size)


def _spec(table: Table, data_root: Path) -> TaskSpec:
    files = [[_file(data_root, name) for name in names] for names in (table.train, table.test)]
    return on_files(load_task(table.task), *files)


def _behind(table: Table, data_root: Path, folder: Path, words: int) -> TaskSpec:
    """The task with so many words of the text before every input, from files written once."""
    assert table.behind is not None
    text = " ".join(str(row["text"]) for row in read(Path(_file(data_root, table.behind.text))))
    written: list[list[str]] = []
    for split, names in (("train", table.train), ("test", table.test)):
        path = folder / "data" / f"{split}-{words}.jsonl"
        rows = [row for name in names for row in read(Path(_file(data_root, name)))]
        write(path, behind(rows, text, words))
        written.append([str(path)])
    spec = on_files(load_task(table.task), *written)
    return with_settings(spec, {"template": "{context}\n" + str(spec.template)}) if words else spec


def _file(data_root: Path, name: str) -> str:
    path = data_root / name
    if not path.is_file():
        raise DataError(f"{path} does not exist: --data-root names the folder that holds {name}")
    return str(path)


def _bench(
    base: Base | None, model: str, table: Table, spec: TaskSpec, settings: Mapping[str, Any], data_root: Path
) -> Bench:
    task = build_task(with_settings(spec, settings))
    if base is None:
        classes = len(task.labels) if task.spec.head == "classifier" else None
        base = load_base(model, classes=classes, pooling=task.spec.pooling)
    others: dict[str, TaskData] = {}
    if table.unrelated:
        files = [_file(data_root, name) for name in table.unrelated]
        text = {
            "kind": "language_modelling",
            "name": "unrelated",
            "test": files,
            "test_limit": UNRELATED_TEXTS,
        }
        others["unrelated"] = build_task(load_task({**text, "max_length": task.spec.max_length}))
    return prepare(base, task, others)


def _methods(base: Base, table: Table, size: Size, log: Log) -> list[Method]:
    methods = [entry.method() for entry in table.entries(size)]
    if size == "default":
        return methods
    wanted = count_parameters(base.model, load_method(table.budget))[0]
    sized = at_budget(base.model, methods, wanted)
    for one in sized:
        log.note(one.note)
    return [one.method for one in sized]


def _dilution(bench: Bench, result: Comparison, folder: Path) -> None:
    """What the memories of the first seed's adapters keep as the input grows, on the task's own texts."""
    import ctxpeft
    from ctxpeft.analysis.diagnose import dilution
    from ctxpeft.analysis.diagnose._texts import windows

    texts = [example.text for example in (*bench.task.test, *bench.task.train)]
    ids = windows(bench.base.tokenizer, texts, max(DILUTION_LENGTHS), WINDOWS)
    handles: dict[str, Any] = {}
    try:
        for place, entry in enumerate(result.entries):
            found = sorted((folder / "runs").glob(f"{entry.name}-*/seed-{result.seeds[0]}-*/adapter"))
            if found and (found[0] / "adapter.safetensors").is_file():
                handles[entry.name] = ctxpeft.load(bench.base.model, found[0], name=f"adapter-{place}")
        dilution(handles, ids, DILUTION_LENGTHS).write(folder)
    finally:
        for handle in handles.values():
            handle.detach()

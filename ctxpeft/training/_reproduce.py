"""A finished run once more, from what its folder says, and what differs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ctxpeft.errors import CtxpeftError, SpecError
from ctxpeft.spec.yaml_lines import read_yaml
from ctxpeft.tasks import build_task, load_task
from ctxpeft.training._base import Base, load_base
from ctxpeft.training._bench import Bench, prepare
from ctxpeft.training._config import TrainingConfig
from ctxpeft.training._folder import RESOLVED
from ctxpeft.training._methods import Method, load_method
from ctxpeft.training._result import RESULT, RunResult
from ctxpeft.training._run import run
from ctxpeft.training.progress import Reporter

SPREAD = 2.0  # standard deviations of the other seeds that a run elsewhere may be off by


@dataclass(frozen=True)
class Reproduction:
    """How a run that was done again compares with the first.

    metrics: main metric of every split, there and here. differences: what is not equal to the last digit.
    spread: standard deviation of the main metric over the other seeds beside the run, by split; None under two of them.
    """

    folder: Path
    metrics: dict[str, tuple[float, float]]
    differences: list[str]
    spread: dict[str, float | None] = field(default_factory=dict)

    @property
    def verdict(self) -> Literal["identical", "within the spread of the seeds", "different"]:
        """Every number equal; else whether all main metrics are within two standard deviations of the seeds'."""
        if not self.differences:
            return "identical"
        within = all(
            (sd := self.spread.get(split)) is not None and abs(here - there) <= SPREAD * sd
            for split, (there, here) in self.metrics.items()
        )
        return "within the spread of the seeds" if within and self.metrics else "different"


def reproduce(
    folder: str | os.PathLike[str],
    out: Path | None = None,
    *,
    model: str | None = None,
    reporter: Reporter | None = None,
) -> Reproduction:
    """Run again what `folder` holds, with its model, data, variant, settings and number of threads.

    Args:
        folder: of a finished run.
        out: where the second run is kept; nowhere when None.
        model: where the model is now; the name in the folder when None.
        reporter: progress; silent when None.

    Raises:
        CtxpeftError: the folder holds no finished run, or its model or data are not here.
    """
    path = Path(folder)
    first, resolved = _finished(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(_threads(path) or threads)
    try:
        bench, method, config = _rebuilt(resolved, model)
        evaluated = resolved["evaluate"]
        second = run(
            bench,
            method,
            config,
            out=out,
            splits=evaluated["splits"],
            generate=evaluated["generate"],
            reporter=reporter,
        )
    finally:
        torch.set_num_threads(threads)
    splits = [name for name in first.evaluations if name in second.evaluations]
    metrics = {name: (first.evaluations[name].value, second.evaluations[name].value) for name in splits}
    return Reproduction(path, metrics, _differences(first, second), _spread(path, first))


def check_reproducible(folder: str | os.PathLike[str], model: str | None = None) -> dict[str, Any]:
    """What `reproduce` would run, and that model, data and variant are those of the run; nothing is trained.

    Raises:
        CtxpeftError: as `reproduce`.
    """
    path = Path(folder)
    first, resolved = _finished(path)
    bench, method, config = _rebuilt(resolved, model)
    return {
        "run": str(path),
        "model": bench.base.name,
        "variant": method.name,
        "task": bench.task.spec.name,
        "training": config.model_dump(mode="json"),
        "splits": list(resolved["evaluate"]["splits"]),
        "threads": _threads(path),
        "seconds_then": round(first.seconds, 1),
    }


def _finished(path: Path) -> tuple[RunResult, dict[str, Any]]:
    """The result of a finished run and its resolved configuration. Raises CtxpeftError where there is none."""
    if not (path / RESULT).is_file() or not (path / RESOLVED).is_file():
        raise CtxpeftError(f"{path} holds no finished run: expected {RESOLVED} and {RESULT}")
    resolved = read_yaml(path / RESOLVED).data
    if not isinstance(resolved, dict) or "task" not in resolved.get("about", {}):
        raise SpecError(f"{path / RESOLVED} is not what a run writes")
    return RunResult.read(path), resolved


def _rebuilt(resolved: Mapping[str, Any], model: str | None) -> tuple[Bench, Method, TrainingConfig]:
    """What the folder was made of. Raises CtxpeftError where the model or the data are other ones."""
    about = resolved["about"]
    task = build_task(load_task(about["task"]))
    classes = len(task.labels) if task.spec.head == "classifier" else None
    base: Base = load_base(
        model or about["model"], resolved["model"]["dtype"], classes=classes, pooling=task.spec.pooling
    )
    if base.digest() != resolved["model"]["digest"]:
        raise CtxpeftError(f"{base.name} is not the model of this run: its parameters differ")
    if task.digest() != resolved["task"]["digest"]:
        raise CtxpeftError(
            f"the data of {task.spec.name} are not those of this run: examples or prompt differ"
        )
    others = {name: build_task(load_task(spec)) for name, spec in about.get("elsewhere", {}).items()}
    described = about["variant"]
    method = load_method(described.get("baseline", described))
    if method.fingerprint() != resolved["variant"]["fingerprint"]:
        raise CtxpeftError("the variant means another method now: its fingerprint differs")
    return prepare(base, task, others), method, TrainingConfig.model_validate(resolved["training"])


def _threads(folder: Path) -> int | None:
    """The threads of the first run; sums in another order differ in the last digits."""
    path = folder / "environment.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("torch_threads") if path.is_file() else None
    return int(found) if found else None


def _differences(first: RunResult, second: RunResult) -> list[str]:
    """The names of what is not equal; times, notes and where the folder is do not count."""
    found = []
    for name in ("config_hash", "steps", "tokens", "trainable", "train_loss", "held_out", "stopped"):
        if getattr(first, name) != getattr(second, name):
            found.append(name)
    for name in sorted({*first.evaluations, *second.evaluations}):
        ours, theirs = first.evaluations.get(name), second.evaluations.get(name)
        if ours is None or theirs is None or ours.metrics != theirs.metrics:
            found.append(f"{name} metrics")
        elif ours.records != theirs.records:
            found.append(f"{name} records")
    return found


def _spread(folder: Path, first: RunResult) -> dict[str, float | None]:
    """Standard deviations over the other finished runs of the same method and rate beside this one."""
    values: dict[str, list[float]] = {}
    for path in sorted(folder.absolute().parent.glob("seed-*")):
        if not (path / RESULT).is_file() or path.name == folder.name:
            continue
        other = RunResult.read(path)
        if (other.fingerprint, other.learning_rate) == (first.fingerprint, first.learning_rate):
            for name, evaluation in other.evaluations.items():
                values.setdefault(name, []).append(evaluation.value)
    return {name: _deviation(values.get(name, [])) for name in first.evaluations}


def _deviation(values: list[float]) -> float | None:
    return float(torch.tensor(values, dtype=torch.float64).std()) if len(values) > 1 else None

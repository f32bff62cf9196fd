"""Training that is killed: by SIGKILL before every change to the file system and at random moments, then continued.

    python -m tests.reliability training --kills 50

The same command continues from a complete checkpoint, or begins anew where there is none, and ends as if nothing had
happened.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ctxpeft.tasks import build_task, load_task
from ctxpeft.training import Bench, RunFolder, TrainingConfig, load_base, prepare, run
from ctxpeft.training._folder import COMPLETE, RESULT
from tests.reliability.saves import forked, until
from tests.tasks.tiny import make_model, make_task

VARIANT = "prefix-tuning-plus"
CONFIG = TrainingConfig(
    steps=8, batch_size=4, eval_every=2, save_every=2, eval_limit=8, learning_rate=1e-2, seed=3
)
CASES = {
    "a run": CONFIG,
    "a run that returns to its best checkpoint": CONFIG.model_copy(update={"patience": 4}),
}


@dataclass
class Tally:
    """What was found after each kill."""

    name: str
    steps: int = 0
    kills: int = 0
    continued: int = 0
    anew: int = 0
    finished: int = 0
    faults: list[str] = field(default_factory=list)


def make_bench(folder: Path) -> Bench:
    """A tiny model and task. Nothing is trained in this process, which is copied: threads of its own would be lost."""
    (folder / "task").mkdir()
    files = make_task(folder / "task")
    spec = {"name": "tiny", "template": "{text} Label:", "generate_limit": 0, "test_limit": 6, **files}
    task = build_task(load_task(spec))
    return prepare(load_base(make_model(folder / "model")), task)


def cut(
    name: str, config: TrainingConfig, bench: Bench, folder: Path, kills: int, seed: int = 0, every: int = 1
) -> Tally:
    """Kill the run before its changes to the file system, each or every so many, then `kills` times at random moments;
    every other time the run that continues is killed too."""
    tally, out, whole = Tally(name), folder / "run", folder / "whole"
    began = time.perf_counter()
    assert forked(lambda: _train(bench, config, whole, keep=True)) == 0
    lasted = time.perf_counter() - began
    expected, parts = comparable(whole), _parts(max(whole.glob("checkpoints/*"), key=_number))
    step = 0
    while os.WIFSIGNALED(forked(lambda: until(step, lambda: _train(bench, config, out)))):  # noqa: B023
        _continue(tally, bench, config, out, expected, parts)
        tally.steps, step = tally.steps + 1, step + every
    shutil.rmtree(out)
    chance = random.Random(seed)
    for number in range(kills):
        for _ in range(1 + number % 2):
            forked(lambda: _train(bench, config, out), after=chance.random() * lasted)
        _continue(tally, bench, config, out, expected, parts)
        tally.kills += 1
    return tally


def comparable(out: Path) -> tuple[Any, ...]:
    """What a finished run has to be equal in: predictions, metrics, values of the adapter, the result but for times."""
    result = json.loads((out / RESULT).read_text(encoding="utf-8"))
    for volatile in ("seconds", "notes"):
        del result[volatile]
    return (
        (out / "predictions-test.jsonl").read_text(encoding="utf-8"),
        (out / "metrics.jsonl").read_text(encoding="utf-8"),
        {key: value.tolist() for key, value in load_file(out / "adapter" / "adapter.safetensors").items()},
        result,
    )


def _train(bench: Bench, config: TrainingConfig, out: Path, keep: bool = False) -> None:
    if keep:
        pytest.MonkeyPatch().setattr(RunFolder, "drop_checkpoints", lambda self: None)
    run(bench, VARIANT, config, out=out, splits=("test",))


def _continue(
    tally: Tally, bench: Bench, config: TrainingConfig, out: Path, expected: Any, parts: set[str]
) -> None:
    """Run the same once more, and see from where it went on and how it ended; the folder is gone then."""
    finished = (out / RESULT).exists()
    marked = [path for path in out.glob("checkpoints/checkpoint-*") if (path / COMPLETE).exists()]
    newest = max(marked, key=_number, default=None)
    if newest is not None and not finished and _parts(newest) != parts:
        tally.faults.append(f"{newest.name} is marked and lacks {sorted(parts - _parts(newest))}")
    status = forked(lambda: _train(bench, config, out))
    if status != 0:
        tally.faults.append(f"the run that continues ended with {status}")
    elif comparable(out) != expected:
        tally.faults.append("another result")
    else:
        notes = " ".join(json.loads((out / RESULT).read_text(encoding="utf-8"))["notes"])
        if finished:
            tally.finished += 1
        elif newest is not None and f"resumed from {newest.name};" in notes:
            tally.continued += 1
        elif newest is None and "resumed" not in notes:
            tally.anew += 1
        else:
            tally.faults.append(f"{newest and newest.name} is complete; {notes or 'begun anew'}")
    shutil.rmtree(out, ignore_errors=True)


def _parts(checkpoint: Path) -> set[str]:
    return {path.name for path in checkpoint.iterdir() if path.stat().st_size or path.name == COMPLETE}


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def measure(folder: Path, kills: int, seed: int = 0, every: int = 1) -> list[Tally]:
    """`cut` for every case, in a process of its own: one that has trained cannot be copied safely."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.reliability.training"]
    numbers = [str(number) for number in (kills, seed, every)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder), *numbers], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    return [Tally(**tally) for tally in json.loads(done.stdout.splitlines()[-1])]


def child(folder: Path, kills: int, seed: int, every: int) -> None:
    """The tallies, printed as JSON."""
    bench = make_bench(folder)
    tallies = []
    for number, (name, config) in enumerate(CASES.items()):
        tallies.append(cut(name, config, bench, folder / str(number), kills, seed, every))
    print(json.dumps([asdict(tally) for tally in tallies]))


if __name__ == "__main__":
    child(Path(sys.argv[1]), *map(int, sys.argv[2:]))

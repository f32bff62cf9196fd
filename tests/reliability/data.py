"""Large and broken data files: read as a stream, refused with the line.

    python -m tests.reliability data --rows 1000000

Memory is what a process of its own needs beyond what it had before, at most.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxpeft.errors import CtxpeftError
from ctxpeft.tasks import build_task, task_from_files
from tests.tasks.test_bad_data import CASES

WORDS = 14


def make_csv(path: Path, rows: int) -> None:
    """`rows` different texts of some fourteen words, in eight classes."""
    chance = random.Random(0)
    words = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 12))) for _ in range(5000)
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for i in range(rows):
            file.write(f"{' '.join(chance.choices(words, k=WORDS))} {i},{'abcdefgh'[i % 8]}\n")


def measure(path: Path) -> list[dict[str, Any]]:
    """What each step of a training run takes for a file, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.reliability.data", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(path: Path) -> None:
    """Each step, its seconds and the bytes it added to the peak; printed as JSON."""
    from ctxpeft.tasks._files import read_rows
    from ctxpeft.training import TrainingConfig, load_base, prepare, run

    base = load_base()
    first = next(iter(read_rows(path)))
    assert first.values
    steps: list[dict[str, Any]] = []
    before = _peak()

    def step(name: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = act()
        steps.append({"step": name, "seconds": time.perf_counter() - began, "bytes": _peak() - before})
        return result

    step("rows read", lambda: sum(1 for _ in read_rows(path)))
    task = step(
        "task built: columns, labels, duplicates, splits", lambda: build_task(task_from_files([str(path)]))
    )
    bench = step("prepared for a model", lambda: prepare(base, task))
    config = TrainingConfig(steps=20, batch_size=8, eval_every=0)
    with tempfile.TemporaryDirectory() as out:
        step("20 steps trained", lambda: run(bench, "ia3", config, out=Path(out), splits=()))
    print(json.dumps(steps))


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise KeyError("VmHWM")


def broken(folder: Path) -> list[tuple[str, str]]:
    """Every kind of broken file, and the sentence it is refused with."""
    told = []
    for name, (file, content, _) in CASES.items():
        path = folder / file
        path.write_bytes(content)
        try:
            build_task(task_from_files([str(path)]))
            told.append((name, "accepted"))
        except CtxpeftError as error:
            told.append((name, str(error).replace(f"{folder}/", "")))
    return told


if __name__ == "__main__":
    child(Path(sys.argv[1]))

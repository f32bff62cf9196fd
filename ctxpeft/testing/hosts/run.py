"""The sweep: families in worker processes of their own, so that a crash or a hang costs one family."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ctxpeft.testing.hosts.family import Result

Family = tuple[str, str]
LIMIT_SECONDS = 180.0
START_SECONDS = 120.0


def sweep(
    families: list[Family], jobs: int, done: Path | None = None, limit: float = LIMIT_SECONDS
) -> Iterator[Result]:
    """Results as they come. With `done`, a JSON-lines file, those it holds are not run again and new ones are added."""
    known = read_lines(done) if done is not None else []
    yield from (r for r in known if (r["mapping"], r["model_type"]) in set(families))
    have = {(r["mapping"], r["model_type"]) for r in known}
    todo = [family for family in families if family not in have]
    waiting: queue.Queue[Result | None] = queue.Queue()
    shares = [todo[i::jobs] for i in range(jobs)]
    threads = [threading.Thread(target=_work, args=(s, waiting, limit), daemon=True) for s in shares]
    for thread in threads:
        thread.start()
    left = len(threads)
    while left:
        result = waiting.get()
        if result is None:
            left -= 1
            continue
        if done is not None:
            with done.open("a") as file:
                file.write(json.dumps(result) + "\n")
        yield result


def read_lines(path: Path) -> list[Result]:
    """The results of a JSON-lines file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _work(families: list[Family], results: queue.Queue[Result | None], limit: float) -> None:
    left = list(families)
    while left:
        for result in _one_process(left, limit):
            left.remove((result["mapping"], result["model_type"]))
            results.put(result)
    results.put(None)


def _one_process(families: list[Family], limit: float) -> Iterable[Result]:
    """The results of one worker until it ends; the family it dies or hangs on is among them, told under `error`."""
    command = [sys.executable, "-m", "ctxpeft.testing.hosts", "--worker", *("/".join(f) for f in families)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    expected, wait = list(families), START_SECONDS + limit
    try:
        while expected:
            started = time.monotonic()
            try:
                line = lines.get(timeout=wait)
            except queue.Empty:
                yield _lost(expected[0], f"no answer in {time.monotonic() - started:.0f} seconds")
                return
            if line is None:
                yield _lost(expected[0], f"the process ended with status {process.wait()}")
                return
            expected.pop(0)
            wait = limit
            yield json.loads(line)
    finally:
        process.kill()
        process.wait()


def _read(process: Any, lines: queue.Queue[str | None]) -> None:
    for line in process.stdout:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def _lost(family: Family, reason: str) -> Result:
    return {"mapping": family[0], "model_type": family[1], "error": reason}

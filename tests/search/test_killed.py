"""A search that is killed at any moment goes on with the same command: nothing is lost, nothing is run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ctxpeft.search.outcome import Row, rows_of, tried
from ctxpeft.search.storage import load_study
from tests.search.conftest import TINY_SPACE


class Command:
    """The tiny search as a user's process."""

    def __init__(self, folder: Path, model: Path, task: dict[str, str]) -> None:
        self.out = folder / "study"
        space = folder / "tiny.yaml"
        space.write_text(TINY_SPACE, encoding="utf-8")
        settings = ["search.finalists=0", "search.trials=2", "steps=60", "data.template={text} Label:"]
        files = ["--data", task["train"], "--test", task["test"]]
        where = ["--model", str(model), "--out", str(self.out)]
        self.arguments = [
            sys.executable,
            "-m",
            "ctxpeft.cli",
            "search",
            str(space),
            *where,
            *files,
            *settings,
        ]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.arguments, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def results(self) -> dict[Path, int]:
        """When each finished run was written."""
        return {path: path.stat().st_mtime_ns for path in (self.out / "runs").glob("*/result.json")}

    def rows(self) -> list[Row]:
        return rows_of(load_study(f"sqlite:///{self.out / 'study.db'}", None).trials)


def wait_for(command: Command, process: subprocess.Popen[str], runs: int) -> None:
    """Until some runs are finished."""
    end = time.monotonic() + 600
    while len(command.results()) < runs and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def test_kill_then_interrupt_then_finish(tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str]) -> None:
    command = Command(tmp_path, tiny_model, tiny_task)
    process = command.start()
    wait_for(command, process, 4)
    process.kill()
    process.communicate()
    after_kill, rows_after_kill = command.results(), command.rows()
    assert any(row.outcome == "running" for row in rows_after_kill)

    process = command.start()
    wait_for(command, process, len(after_kill) + 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "continues from it" in err
    after_interrupt = command.results()
    assert after_kill.items() <= after_interrupt.items()

    process = command.start()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "resuming" in err or "[1/4]" in err
    assert "\x1b" not in err + out
    assert after_interrupt.items() <= command.results().items()
    rows = command.rows()
    finished = {row.number: row for row in rows_after_kill if row.outcome not in ("running", "interrupted")}
    assert all(rows[number] == row for number, row in finished.items())
    trained = [row.fingerprint for row in rows if row.outcome in ("completed", "pruned")]
    assert len(trained) == len(set(trained))
    assert len(tried(rows)) == 2
    assert sorted(row.anchor for row in rows if row.anchor and row.outcome == "completed") == [
        "prefix-tuning",
        "prefix-tuning-plus",
    ]
    assert str(command.out / "report.html") in out


def test_workers_end_with_the_process_that_started_them(
    tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str]
) -> None:
    command = Command(tmp_path, tiny_model, tiny_task)
    process = command.start("--workers", "2")
    wait_for(command, process, 2)
    process.kill()
    process.communicate()  # returns when the workers have closed the streams they share with it
    before = command.results()
    time.sleep(1)
    assert command.results() == before
    process = command.start()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert before.items() <= command.results().items()
    assert len(tried(command.rows())) == 2

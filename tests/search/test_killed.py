"""A search that is killed at any moment goes on with the same command: nothing is lost, nothing is run twice."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

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
            start_new_session=True,
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


@pytest.mark.parametrize("when", ["while the workers load", "amid the work"])
def test_an_interrupt_of_the_terminal_ends_workers_cleanly(
    tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str], when: str
) -> None:
    """Ctrl-C reaches every process of the terminal at once; none shows where it was."""
    command = Command(tmp_path, tiny_model, tiny_task)
    process = command.start("--workers", "2", "steps=40")
    if when == "amid the work":
        wait_for(command, process, 2)
    else:
        end = time.monotonic() + 600
        while workers_in(process.pid) < 2 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "error: interrupted; what was finished is saved" in err
    assert time.monotonic() - began < 60
    assert workers_in(process.pid) == 0
    assert not any(row.outcome == "failed" for row in command.rows())
    before = command.results()
    process = command.start("steps=40")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert before.items() <= command.results().items()
    assert len(tried(command.rows())) == 2


def workers_in(session: int) -> int:
    """Worker processes of a command that was started in a session of its own."""
    found = 0
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found += os.getsid(other.pid) == session and any("spawn_main" in part for part in other.cmdline())
    return found


def test_on_a_terminal_it_draws_a_panel_and_ctrl_c_leaves_the_terminal_as_it_was(
    tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str]
) -> None:
    command = Command(tmp_path, tiny_model, tiny_task)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100", LINES="30")
        os.execv(command.arguments[0], [*command.arguments, "steps=40"])
    seen, pressed = b"", False
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                break
        if not pressed and b"at the rung" in seen and b"in full: step" in seen:
            os.write(terminal, b"\x03")
            pressed = True
    _, status = os.waitpid(pid, 0)
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 130, text
    assert "0/4 designs" in text
    assert "best so far" in text
    assert "prefix-tuning-plus (anchor)" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "interrupted; what was finished is saved" in text[text.rindex("\x1b[?25h") :]
    process = command.start("steps=40")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "resuming: " in err
    process = command.start("steps=40", "--fresh")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "resuming: " not in err
    assert "[4/4]" in err

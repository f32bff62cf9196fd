"""What goes wrong in a trial stays in it: the study goes on, each finished trial counts once, failed ones say why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.disk import is_full, room_needed
from ctxpeft.search.outcome import Row, rows_of, tried
from ctxpeft.search.storage import load_study
from tests.search import faulty_blocks

SPACE = """
title: Blocks that go wrong
anchors: [prefix-tuning-plus]
modules:
  - templates:
      matrix:
        placement: outside
        feature_map: {maps}
        memory: {{kind: matrix, per: [query_head, kv_head]}}
rates: {{multipliers: [1, 3], widen: 0}}
search: {{trials: {trials}, rung: 0.5, warmup: 2, keep: 1, finalists: 0, startup: 100}}
training: {{steps: 4, batch_size: 4}}
"""


@pytest.fixture
def package(tmp_path: Path) -> dict[str, str]:
    """An environment in which the user's package of faulty blocks is installed."""
    folder = tmp_path / "site"
    info = folder / "faulty_blocks-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(faulty_blocks.__file__, folder / "faulty_blocks.py")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: faulty-blocks\nVersion: 1.0\n", encoding="utf-8"
    )
    kinds = {"raising": "Raising", "nan": "Nan", "greedy": "Greedy"}
    lines = [f"feature_map.{kind} = faulty_blocks:{name}\n" for kind, name in kinds.items()]
    (info / "entry_points.txt").write_text("[ctxpeft.blocks]\n" + "".join(lines), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"}


def command(folder: Path, out: Path, maps: str, trials: int, model: Path, task: dict[str, str]) -> list[str]:
    """The search as a user types it."""
    space = folder / "faulty.yaml"
    space.write_text(SPACE.format(maps=maps, trials=trials), encoding="utf-8")
    arguments = ["search", str(space), "--model", str(model), "--data", task["train"], "--out", str(out)]
    return [sys.executable, "-m", "ctxpeft.cli", *arguments, "data.template={text} Label:"]


def run(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def rows(out: Path) -> list[Row]:
    return rows_of(load_study(f"sqlite:///{out / 'study.db'}", None).get_trials(deepcopy=False))


def test_nan_no_memory_and_a_users_mistake_are_failures_with_their_reasons(
    package: dict[str, str], tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str]
) -> None:
    out = tmp_path / "study"
    maps = "[elu, relu, raising, nan, greedy]"
    done = run(command(tmp_path, out, maps, 10, tiny_model, tiny_task), package)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = rows(out)
    by_map = {}
    for row in tried(found):
        by_map.setdefault(row.variant["modules"][0]["feature_map"]["kind"], []).append(row)
    assert set(by_map) == {"elu", "relu", "raising", "nan", "greedy"}
    assert all(row.outcome == "completed" for kind in ("elu", "relu") for row in by_map[kind])
    reasons = {
        "raising": 'KeyError: "the user\'s own mistake"',
        "nan": "every learning rate diverged (0.003, 0.009)",
        "greedy": "RuntimeError: ",
    }
    for kind, reason in reasons.items():
        assert all(row.outcome == "failed" and row.reason.startswith(reason) for row in by_map[kind])
    assert "memory" in by_map["greedy"][0].reason.lower()
    trained = [row.fingerprint for row in tried(found)]
    assert len(trained) == len(set(trained)) >= 9
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "the user&#39;s own mistake" in html
    again = run(command(tmp_path, out, maps, 10, tiny_model, tiny_task), package)
    assert again.returncode == 0, again.stderr
    assert rows(out) == found, "what failed is not tried again"


FULL = """
mkdir -p "$DISK" && mount -t tmpfs -o size={small} tmpfs "$DISK" || exit 77
"$@" > "$WHERE/out1" 2> "$WHERE/err1"; echo $? > "$WHERE/code1"
cp -r "$DISK/study" "$WHERE/first" || true
mount -o remount,size=200m "$DISK"
"$@" > "$WHERE/out2" 2> "$WHERE/err2"; echo $? > "$WHERE/code2"
cp -r "$DISK/study" "$WHERE/second"
"""


@pytest.mark.parametrize(("small", "workers"), [("400k", 1), ("560k", 1), ("500k", 2)])
def test_a_full_disk_stops_the_search_and_it_goes_on_when_there_is_room(
    small: str, workers: int, tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str]
) -> None:
    """On a file system of a few hundred kilobytes, made in a name space of the test's own."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) makes the small file system, and is not installed")
    disk = tmp_path / "disk"
    arguments = command(tmp_path, disk / "study", "[elu, relu, gelu]", 4, tiny_model, tiny_task)
    arguments += ["--workers", str(workers)]
    script = FULL.format(small=small)
    environment = {**os.environ, "DISK": str(disk), "WHERE": str(tmp_path), "NO_COLOR": "1"}
    done = run(["unshare", "-rm", "sh", "-c", script, "sh", *arguments], environment)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no small file system could be made here: {done.stderr.strip()}")
    first = (tmp_path / "err1").read_text(encoding="utf-8")
    assert (tmp_path / "code1").read_text(encoding="utf-8").strip() == "2", first
    assert "Traceback" not in first
    assert "no space is left for" in first
    assert "the same command goes on" in first
    second = (tmp_path / "err2").read_text(encoding="utf-8")
    assert (tmp_path / "code2").read_text(encoding="utf-8").strip() == "0", second
    found = rows(tmp_path / "second")
    assert len(tried(found)) in ({4} if workers == 1 else {4, 5})
    assert not [row for row in found if row.outcome in ("failed", "running")]
    completed = [row.fingerprint for row in found if row.outcome == "completed"]
    assert len(completed) == len(set(completed))
    assert (tmp_path / "second" / "report.html").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_through_every_layer(error: Exception, tmp_path: Path) -> None:
    outer = ValueError("saving failed")
    outer.__cause__ = error
    assert is_full(outer, tmp_path)
    with pytest.raises(CtxpeftError, match="no space is left"), room_needed(tmp_path):
        raise error
    assert not is_full(RuntimeError("PytorchStreamWriter failed writing file"), tmp_path)
    with pytest.raises(KeyError), room_needed(tmp_path):
        raise KeyError("something else")

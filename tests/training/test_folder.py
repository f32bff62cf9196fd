"""The folder of a run: finished, refused, discarded, locked, resumed after a kill."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ctxpeft.cli import main
from ctxpeft.errors import CtxpeftError
from ctxpeft.training import Bench, RunFolder, RunResult, TrainingConfig, run
from tests.reliability.training import comparable

QUICK = TrainingConfig(steps=4, batch_size=4, eval_every=2, eval_limit=8, learning_rate=1e-2)
FILES = {
    "adapter",
    "environment.json",
    "metrics.jsonl",
    "predictions-test.jsonl",
    "resolved.yaml",
    "result.json",
}


def test_what_is_written_and_read_back(bench: Bench, tmp_path: Path) -> None:
    result = run(bench, "prefix-tuning-plus", QUICK, out=tmp_path / "run", splits=("test",))
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES
    assert RunResult.read(tmp_path / "run") == result
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["packages"]["torch"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [2, 4]
    assert len([line for line in lines if "loss" in line]) == 4


def test_a_finished_run_is_read_not_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(bench, "ia3", QUICK, out=tmp_path, splits=("test",))
    monkeypatch.setattr("ctxpeft.training._job.Job.complete", None)
    assert run(bench, "ia3", QUICK, out=tmp_path, splits=("test",)) == first


@pytest.mark.parametrize(
    ("variant", "change", "splits", "told"),
    [
        ("ia3", {"seed": 1}, ("test",), "training.seed: 0 there, 1 here"),
        ("ia3", {"steps": 5}, ("test",), "training.steps: 4 there, 5 here"),
        ("lora-qv", {}, ("test",), 'variant.name: "ia3" there, "lora-qv" here'),
        ("ia3", {}, ("ood",), "evaluate.splits"),
    ],
)
def test_another_configuration_is_refused(
    bench: Bench, tmp_path: Path, variant: str, change: dict[str, int], splits: tuple[str, ...], told: str
) -> None:
    run(bench, "ia3", QUICK, out=tmp_path / "run", splits=("test",))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    config = QUICK.model_copy(update=change)
    with pytest.raises(CtxpeftError, match=told):
        run(bench, variant, config, out=tmp_path / "run", splits=splits)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    assert {k: v for k, v in after.items() if k in before} == before
    (tmp_path / "run" / "mine.txt").write_text("kept")
    assert run(bench, variant, config, out=tmp_path / "run", splits=splits, fresh=True).method == variant
    assert (tmp_path / "run" / "mine.txt").read_text() == "kept"


def _resolved(**changes: object) -> dict[str, Any]:
    """A configuration with `task=`, `model=` or `seed=` changed; each hash follows what it stands for."""
    model, task = changes.get("model", "m"), changes.get("task", {"name": "t", "train": ["a.csv"]})
    return {
        "model": {"digest": f"hash of {model}{changes.get('weights', '')}"},
        "task": {"digest": f"hash of {task}{changes.get('rows', '')}"},
        "training": {"seed": changes.get("seed", 0)},
        "about": {"model": model, "task": task, "notes": [f"of {changes}"]},
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows": 1, "seed": 1}, "training.seed: 0 there, 1 here"),
        ({"model": "n", "rows": 1, "seed": 1}, 'model: "m" there, "n" here'),
        ({"task": {"name": "t", "train": ["b.csv"]}}, 'task.train.0: "a.csv" there, "b.csv" here'),
        ({"rows": 1}, "the rows of the data or the prompt changed"),
        ({"weights": 1}, "the weights of the model changed"),
    ],
)
def test_what_a_reader_understands_is_named_before_a_hash(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    RunFolder(tmp_path, _resolved()).open()
    with pytest.raises(CtxpeftError) as refused:
        RunFolder(tmp_path, _resolved(**changes)).check()
    assert f"({told})" in str(refused.value)
    RunFolder(tmp_path, _resolved()).check()


def test_a_file_is_no_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CtxpeftError, match="is a file"):
        run(bench, "ia3", QUICK, out=tmp_path / "run")


def test_two_processes_do_not_share_a_folder(bench: Bench, tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}).locked(), pytest.raises(CtxpeftError, match="in use by another process"):
        run(bench, "ia3", QUICK, out=tmp_path)


def test_half_a_checkpoint_is_not_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    for step, complete in ((2, True), (4, True), (6, False)):
        (folder.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        if complete:
            (folder.checkpoints / f"checkpoint-{step}" / "complete").touch()
    found = folder.last_checkpoint()
    assert found is not None
    assert found.name == "checkpoint-4"
    assert not (folder.checkpoints / "checkpoint-6").exists()


def _command(model: Path, task: dict[str, str], out: Path) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "ctxpeft.cli",
            "train",
            "--model",
            str(model),
            "--variant",
            "prefix-tuning-plus",
        ),
        *("--data", task["train"], "--test", task["test"], "--out", str(out)),
        *("steps=60", "batch_size=4", "eval_every=5", "eval_limit=8", "lr=1e-2", "generate_limit=2"),
    ]


def test_resumed_after_kills_it_is_the_same_run(
    tiny_model: Path,
    tiny_task: dict[str, str],
    tmp_path: Path,
) -> None:
    assert main(_command(tiny_model, tiny_task, tmp_path / "whole")[3:]) == 0
    chance = random.Random(5)
    out, command = tmp_path / "run", _command(tiny_model, tiny_task, tmp_path / "run")
    kills = 0
    for checkpoint in (5, 25):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        waiting = time.monotonic() + 250
        while time.monotonic() < waiting and process.poll() is None:
            steps = [int(p.name.rpartition("-")[2]) for p in (out / "checkpoints").glob("checkpoint-*")]
            if max(steps, default=0) >= checkpoint:
                break
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert comparable(out) == comparable(tmp_path / "whole")
    assert "resumed from checkpoint" in json.loads((out / "result.json").read_text())["notes"][-1]
    assert not (out / "checkpoints").exists()


def test_ctrl_c_saves_and_exits_130(tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path) -> None:
    settings = ("steps=20000", "eval_every=0", "save_every=7")
    command = [*_command(tiny_model, tiny_task, tmp_path), *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "checkpoints" / "checkpoint-7"
    waiting = time.monotonic() + 250
    while time.monotonic() < waiting and process.poll() is None and not first.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "interrupted" in err.splitlines()[-1]
    assert "Traceback" not in err
    saved = [p.name for p in (tmp_path / "checkpoints").iterdir() if (p / "complete").exists()]
    last = max(int(name.rpartition("-")[2]) for name in saved)
    assert last >= 7
    assert not (tmp_path / "result.json").exists()

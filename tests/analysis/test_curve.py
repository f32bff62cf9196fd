"""Few examples a class: every seed draws its own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctxpeft.analysis.compare import compare
from ctxpeft.analysis.curve import Curve, data_curve
from ctxpeft.analysis.statistics import holm
from ctxpeft.errors import DataError, SpecError
from ctxpeft.tasks import build_task, load_task
from ctxpeft.training import Bench, TrainingConfig, prepare
from ctxpeft.training._job import Job
from tests.cli.running import run as command

QUICK = TrainingConfig(steps=3, batch_size=4, eval_every=0)
VARIANTS = ["prefix-tuning-plus", "lora-qv"]


@pytest.fixture(scope="module")
def study(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Curve, Path]:
    out = tmp_path_factory.mktemp("curve")
    return data_curve(bench, VARIANTS, out, [4, 1], seeds=2, config=QUICK, resamples=300), out


def test_draws_are_of_the_seed_and_nested(bench: Bench) -> None:
    spec = bench.task.spec.model_copy(update={"per_class": 2, "draw": "seed"})
    drawing = replace(bench, task=replace(bench.task, spec=spec))
    first, again, other = (drawing.drawn(seed) for seed in (0, 0, 1))
    assert Counter(e.target for e in first.task.train) == {"animal": 2, "fruit": 2, "metal": 2}
    assert [e.example for e in first.train] == list(first.task.train)
    assert first.task.train == again.task.train != other.task.train
    wider = replace(drawing, task=replace(drawing.task, spec=spec.model_copy(update={"per_class": 5})))
    assert {e.id for e in first.task.train} < {e.id for e in wider.drawn(0).task.train}
    assert (first.held_out, first.task.test) == (bench.held_out, bench.task.test)
    assert bench.drawn(3) is bench
    assert first.task.spec.draw == 0


def test_a_task_file_may_ask_for_it(bench: Bench, tiny_task: dict[str, str], tmp_path: Path) -> None:
    spec = {"name": "tiny", "template": "{text} Label:", "generate_limit": 4, **tiny_task}
    task = build_task(load_task({**spec, "per_class": 1, "draw": "seed"}))
    assert len(task.train) == len(bench.task.train)
    few = prepare(bench.base, task)
    result = compare(few, VARIANTS, tmp_path, seeds=2, config=QUICK, resamples=50)
    assert (result.draws, result.train_examples) == (True, 3)
    fixed = [prepare(bench.base, build_task(load_task({**spec, "per_class": 1, "draw": d}))) for d in (0, 1)]
    for seed, one in enumerate(fixed):
        alone = compare(one, VARIANTS, tmp_path / str(seed), seeds=[seed], config=QUICK, resamples=50)
        assert [e.values[0] for e in alone.entries] == [e.values[seed] for e in result.entries]


def test_what_is_found(study: tuple[Curve, Path]) -> None:
    curve, out = study
    assert curve.sizes == [1, 4]
    assert [c.train_examples for c in curve.comparisons] == [3, 12]
    written = json.loads((out / "curve.json").read_text())
    assert [(p["size"], p["name"]) for p in written["points"]] == [
        (1, "prefix-tuning-plus"),
        (1, "lora-qv"),
        (4, "prefix-tuning-plus"),
        (4, "lora-qv"),
    ]
    assert "| 1 | 4 |" in (out / "curve.md").read_text()
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    raw = [
        json.loads((out / f"per-class-{size}" / "compare.json").read_text())["entries"][1]["difference"]["p"]
        for size in (1, 4)
    ]
    assert [c.entries[1].adjusted for c in curve.comparisons] == holm(raw)


def test_a_second_run_runs_nothing(
    bench: Bench, study: tuple[Curve, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    curve, out = study

    def refuse(self: Job, *args: Any) -> Any:
        raise AssertionError(f"{self.method.name} ran again")

    monkeypatch.setattr(Job, "complete", refuse)
    again = data_curve(bench, VARIANTS, out, [1, 4], seeds=2, config=QUICK, resamples=300)
    assert again == curve


def test_what_has_no_curve(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="above zero"):
        data_curve(bench, VARIANTS, tmp_path / "out", [0, 1])
    text = replace(bench, task=replace(bench.task, kind="completion"))
    with pytest.raises(DataError, match="no classification"):
        data_curve(text, VARIANTS, tmp_path / "out", [1])
    few = replace(bench.task, spec=bench.task.spec.model_copy(update={"limit": 9}))
    with pytest.raises(DataError, match="a subsample already"):
        data_curve(replace(bench, task=few), VARIANTS, tmp_path / "out", [1])
    assert not (tmp_path / "out").exists()


def test_the_command(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", tiny_model, "--data", tiny_task["train"], "--test", tiny_task["test"], "--seeds", 2)
    settings = ("steps=2", "batch_size=4", "eval_every=0", "generate_limit=0", "template={text} Label:")
    on = ("compare", "--variants", "ia3,prefix-tuning", *flags, *settings, "--out", tmp_path)
    done = command(capsys, *on, "--per-class", "1,2")
    assert done.code == 0, done.err
    assert "training examples per class" in done.out
    again = command(capsys, *on, "--per-class", "1,2", "--json")
    assert len(again.result["points"]) == 4
    wrong = command(capsys, *on, "--per-class", "1,two")
    assert (wrong.code, "expected whole numbers above zero" in wrong.err) == (2, True)

"""What is gained on one set and lost on others."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import ctxpeft
from ctxpeft.analysis.compare import compare
from ctxpeft.analysis.comparison import Comparison
from ctxpeft.analysis.transfer import pareto, transfer
from ctxpeft.errors import DataError
from ctxpeft.tasks import TaskData, build_task, evaluate, load_task
from ctxpeft.training import Bench, TrainingConfig, encoder_for, prepare
from tests.cli.running import run as command
from tests.tasks.tiny import sentences, write_jsonl

QUICK = TrainingConfig(steps=4, batch_size=4, eval_every=0)
VARIANTS = ["prefix-tuning-plus", "full", "none"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "text.txt"
    file.write_text("\n\n".join(f"the fox saw {i} old {'red ' * (i % 3)}plums" for i in range(12)))
    return file


@pytest.fixture(scope="module")
def others(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskData]:
    rows = [{"text": row["text"], "label": row["label"][0] + "x"} for row in sentences(15, seed=9)]
    file = write_jsonl(tmp_path_factory.mktemp("other") / "other.jsonl", rows)
    return {
        "ood": build_task(load_task({"name": "other", "test": [str(file)], "template": "{text} Kind:"})),
        "unrelated": build_task(load_task({"kind": "language_modelling", "test": [str(texts)]})),
    }


@pytest.fixture(scope="module")
def study(
    bench: Bench, others: dict[str, TaskData], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("transfer")
    wide = prepare(bench.base, replace(bench.task, ood=()), others)
    return compare(wide, VARIANTS, out, seeds=2, config=QUICK, resamples=300), out


def test_the_front_is_what_no_other_point_beats() -> None:
    points = [(0.0, 3.0), (1.0, 1.0), (1.0, 1.0), (2.0, 2.0), (3.0, 0.0), (0.0, 4.0)]
    assert pareto(points) == [0, 1, 2, 4]
    grid = [(float(x), float(y)) for x, y in itertools.product(range(3), range(3))]
    assert pareto(grid) == [0]
    assert pareto([(math.inf, 1.0)]) == [0]


def test_forgetting_is_the_rise_of_the_loss_over_the_frozen_base(
    bench: Bench, others: dict[str, TaskData], study: tuple[Comparison, Path]
) -> None:
    result, out = study
    plus, full, frozen = result.entries
    assert frozen.forgetting is not None
    assert (frozen.forgetting.mean, frozen.forgetting.low, frozen.forgetting.high) == (0.0, 0.0, 0.0)
    assert full.forgetting is not None
    assert plus.forgetting is not None
    assert full.forgetting.low <= full.forgetting.mean <= full.forgetting.high
    model, text = bench.base.model, others["unrelated"]
    before = evaluate(model, encoder_for(bench.base, text), text.test).value
    assert result.base["unrelated"] == pytest.approx(before)
    rises = []
    for folder in sorted((out / "runs").glob("prefix-tuning-plus-*/seed-*")):
        handle = ctxpeft.load(model, folder / "adapter")
        rises.append(evaluate(model, encoder_for(bench.base, text), text.test).value - before)
        handle.detach()
    assert len(rises) == 2
    assert plus.forgetting.mean == pytest.approx(sum(rises) / 2, abs=1e-6)
    assert plus.forgetting.mean != 0


def test_other_data_keep_their_own_labels(study: tuple[Comparison, Path]) -> None:
    result, out = study
    assert result.ood_metric == "accuracy"
    found = json.loads(next((out / "runs").glob("full-*/seed-0*/result.json")).read_text())
    assert set(found["evaluations"]["ood"]["per_class"]) == {"ax", "fx", "mx"}
    assert set(found["evaluations"]["test"]["per_class"]) == {"animal", "fruit", "metal"}


def test_the_table_says_who_is_on_which_front(study: tuple[Comparison, Path]) -> None:
    result, out = study
    rows = transfer(result).to_dict()["rows"]
    assert [row["variant"] for row in rows] == VARIANTS
    best = max(rows, key=lambda row: (row["test"], -row["forgetting"]))
    assert "forgetting" in best["front"]
    assert json.loads((out / "transfer.json").read_text())["rows"] == rows
    assert (out / "transfer.png").read_bytes().startswith(b"\x89PNG")
    assert "frozen base" in (out / "transfer.md").read_text()


def test_other_data_change_no_training_and_enter_the_folder(
    bench: Bench, others: dict[str, TaskData], study: tuple[Comparison, Path], tmp_path: Path
) -> None:
    result, _ = study
    alone = compare(bench, VARIANTS, tmp_path / "alone", seeds=2, config=QUICK, resamples=300)
    assert [e.values for e in alone.entries] == [e.values for e in result.entries]
    assert alone.base == {"ood": pytest.approx(alone.base["ood"])}
    with pytest.raises(DataError, match="tiny has ood data of its own"):
        prepare(bench.base, bench.task, others)


def test_the_command_measures_on_files(
    tiny_model: Path,
    tiny_task: dict[str, str],
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--model", tiny_model, "--data", tiny_task["train"], "--test", tiny_task["test"], "--seeds", 1)
    settings = ("steps=2", "batch_size=4", "eval_every=0", "generate_limit=0", "template={text} Label:")
    done = command(
        capsys,
        "compare",
        "--variants",
        "ia3,none",
        *flags,
        *settings,
        "--ood",
        tiny_task["ood"],
        "--unrelated",
        texts,
        "--out",
        tmp_path,
        "--json",
    )
    assert done.code == 0, done.err
    assert set(done.result["base"]) == {"ood", "unrelated"}
    found = json.loads(next((tmp_path / "runs").glob("ia3-*/seed-0*/result.json")).read_text())
    assert set(found["evaluations"]["ood"]["per_class"]) == {"animal", "fruit", "metal"}

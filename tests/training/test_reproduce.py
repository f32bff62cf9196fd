"""A folder is enough to run again what it holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ctxpeft.analysis.compare import compare
from ctxpeft.errors import CtxpeftError
from ctxpeft.tasks import build_task, load_task
from ctxpeft.training import Bench, RunResult, TrainingConfig, load_base, prepare, reproduce, run
from tests.cli.running import run as command
from tests.tasks.tiny import write_jsonl

QUICK = TrainingConfig(steps=6, batch_size=4, learning_rate=1e-2, eval_every=3, eval_limit=8)


@pytest.mark.parametrize("variant", ["prefix-tuning", "prompt-tuning", "lora-qv", "full", "none", "probe"])
def test_the_same_machine_gives_the_same_numbers(bench: Bench, tmp_path: Path, variant: str) -> None:
    run(bench, variant, QUICK.model_copy(update={"seed": 5}), out=tmp_path / "first")
    torch.manual_seed(99)
    found = reproduce(tmp_path / "first", tmp_path / "second")
    assert (found.verdict, found.differences) == ("identical", [])
    assert set(found.metrics) == {"validation", "test", "ood"}
    for name in ("predictions-test.jsonl", "resolved.yaml"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    for file in (tmp_path / "first" / "adapter").glob("*.safetensors"):
        ours, theirs = load_file(file), load_file(tmp_path / "second" / "adapter" / file.name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_draws_other_data_and_heads_come_back(
    bench: Bench, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"the fox saw {i} plums" for i in range(9)))
    unrelated = build_task(load_task({"kind": "language_modelling", "test": [str(text)]}))
    few = {"name": "tiny", "template": "{text} Label:", **tiny_task, "per_class": 2, "draw": "seed"}
    drawing = prepare(bench.base, build_task(load_task(few)), {"unrelated": unrelated})
    compare(drawing, ["prefix-tuning-plus", "ia3"], tmp_path / "study", seeds=2, config=QUICK, resamples=20)
    for folder in sorted((tmp_path / "study" / "runs").glob("*/seed-1-*")):
        assert reproduce(folder).verdict == "identical"
    headed = build_task(load_task({"template": "{text}", "head": "classifier", **tiny_task}))
    run(prepare(load_base(tiny_model, classes=3), headed), "prefix-tuning", QUICK, out=tmp_path / "head")
    assert reproduce(tmp_path / "head").verdict == "identical"


def _edit(folder: Path, change: Any) -> None:
    data = json.loads((folder / "result.json").read_text())
    change(data)
    (folder / "result.json").write_text(json.dumps(data))


def test_other_numbers_are_told_and_judged_by_the_spread(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    compare(bench, ["prefix-tuning", "ia3"], study, seeds=3, config=QUICK, resamples=20)
    folder = next((study / "runs").glob("prefix-tuning-*/seed-0-*"))
    same = command(capsys, "reproduce", folder, "--json")
    assert (same.code, same.result["verdict"]) == (0, "identical")
    assert same.result["spread"]["test"] == pytest.approx(
        torch.tensor(
            [RunResult.read(p).evaluations["test"].value for p in sorted(folder.parent.glob("seed-[12]-*"))],
            dtype=torch.float64,
        )
        .std()
        .item()
    )

    def train_loss(data: Any) -> None:
        data["train_loss"] += 1e-7

    _edit(folder, train_loss)
    near = command(capsys, "reproduce", folder, "--json")
    assert (near.code, near.result["verdict"]) == (0, "within the spread of the seeds")
    assert near.result["differences"] == ["train_loss"]

    def accuracy(data: Any) -> None:
        data["evaluations"]["test"]["metrics"]["accuracy"] += 10

    _edit(folder, accuracy)
    far = command(capsys, "reproduce", folder)
    assert far.code == 1
    assert "different (not equal: train_loss, test metrics)" in far.out


def test_what_cannot_be_reproduced(bench: Bench, tiny_task: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CtxpeftError, match="holds no finished run"):
        reproduce(tmp_path / "nowhere")
    rows = [json.loads(row) for row in Path(tiny_task["train"]).read_text().splitlines()]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    own = prepare(bench.base, build_task(load_task({"train": [str(data)], "test": [tiny_task["test"]]})))
    run(own, "ia3", QUICK, out=tmp_path / "run", splits=())
    write_jsonl(data, rows[1:])
    with pytest.raises(CtxpeftError, match="are not those of this run"):
        reproduce(tmp_path / "run")
    write_jsonl(data, rows)
    with pytest.raises(CtxpeftError, match="is not the model of this run"):
        reproduce(tmp_path / "run", model="ctxpeft-mini")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    resolved = yaml.safe_load((tmp_path / "other" / "resolved.yaml").read_text())
    resolved["variant"]["fingerprint"] = "0" * 64
    (tmp_path / "other" / "resolved.yaml").write_text(yaml.safe_dump(resolved))
    with pytest.raises(CtxpeftError, match="means another method now"):
        reproduce(tmp_path / "other")

"""`train`, `eval` and `compare` from the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.tasks.tiny import make_model, tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]

QUICK = ("steps=3", "batch_size=4", "eval_every=0", "generate_limit=2", "template={text} Label:")


def test_dry_run_writes_nothing(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--model",
        tiny_model,
        "--data",
        tiny_task["train"],
        "--test",
        tiny_task["test"],
        *QUICK,
        "--dry-run",
    )
    done = run(
        capsys, "train", "--variant", "prefix-tuning-plus", *flags, "--out", tmp_path / "out", "--json"
    )
    assert (done.code, done.err) == (0, "")
    plan = done.result["plan"]
    assert (plan["train"], plan["validation"], plan["test"]) == (81, 9, 30)
    assert plan["labels"] == ["animal", "fruit", "metal"]
    assert plan["example"]["prompt"].endswith(" Label:")
    assert plan["training"]["steps"] == 3
    assert plan["label_tokens"] == {"shortest": 1, "longest": 1}
    spelt = run(
        capsys, "train", "--variant", "ia3", *flags, "label_words={metal: metal of the earth}", "--json"
    ).result["plan"]
    assert spelt["label_tokens"]["longest"] > spelt["label_tokens"]["shortest"] == 1
    plain = run(capsys, "train", "--variant", "prefix-tuning-plus", *flags)
    assert plain.code == 0
    assert "Nothing was run or written" in plain.out
    assert f"{plan['cost']['per_token']['training']:+,} FLOPs a token" in plain.out
    lines = [line.strip() for line in plain.out.splitlines()]
    assert "labels: animal, fruit, metal" in lines
    assert "label_tokens: shortest 1, longest 1" in lines
    assert "notes: none" in lines
    assert not any("None" in line for line in lines)
    none = run(capsys, "train", "--variant", "none", *flags, "--json").result["plan"]
    assert none["cost"] is None
    assert none["advice"] == []
    slots = ["variant.modules.0.memory.count=1", "template=" + "word " * 9 + "{text} Label:"]
    long = run(capsys, "train", "--variant", "prefix-tuning", *flags, *slots, "--json").result["plan"]
    assert long["tokens"]["median"] > 8
    (dilutes,) = [line for line in long["advice"] if "[long-inputs-dilute]" in line]
    assert dilutes in run(capsys, "train", "--variant", "prefix-tuning", *flags, *slots).out.replace(
        "\n", " "
    )
    short = run(capsys, "train", "--variant", "prefix-tuning", *flags, "--json").result["plan"]
    assert not [line for line in short["advice"] if "long-inputs-dilute" in line]
    many = run(capsys, "compare", "--variants", "ia3,none", *flags, "--seeds", 2, "--json")
    assert [row["runs"] for row in many.result["plan"]["variants"]] == [2, 1]
    assert not (tmp_path / "out").exists()


def test_train_then_eval(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = (
        "--model",
        tiny_model,
        "--data",
        tiny_task["train"],
        "--test",
        tiny_task["test"],
        "--out",
        out,
        *QUICK,
    )
    trained = run(
        capsys, "train", "--variant", "prefix-tuning", *flags, "variant.modules.0.memory.count=3", "--json"
    )
    assert trained.code == 0, trained.err
    assert trained.result["trainable"] == 2 * 3 * 2 * 2 * 8  # layers, slots, KV heads, K and V, width
    test = trained.result["evaluations"]["test"]
    assert test["count"] == 30
    for adapter in (out, out / "adapter"):
        on = ("--model", tiny_model, "--adapter", adapter, "--data", tiny_task["test"])
        again = run(capsys, "eval", *on, "generate_limit=2", "--json")
        assert again.result["evaluations"]["test"] == test
    bare = run(capsys, "eval", "--model", tiny_model, "--data", tiny_task["test"], "--json")
    assert bare.result["evaluations"]["test"]["metrics"]["loss"] != test["metrics"]["loss"]
    again = run(capsys, "train", "--variant", "prefix-tuning", *flags)
    assert again.code == 2
    assert "another configuration (variant.modules.0.memory.count: 3 there, 32 here)" in again.err
    plain = run(capsys, "train", "--variant", "prefix-tuning", *flags, "--fresh")
    assert plain.code == 0
    told = re.search(
        r"^test \(30\): accuracy [\d.]+  .*  exact_match [\d.]+ \(of 2\)$", plain.out, re.MULTILINE
    )
    refused = run(capsys, "eval", *on, "steps=5")
    assert (refused.code, refused.err) == (2, "error: eval trains nothing: 'steps' is a training setting\n")
    evaluated = run(capsys, "eval", *on, "generate_limit=2").out
    assert told
    assert evaluated.splitlines()[0].endswith("(of 2)")


def test_eval_says_that_an_adapter_was_trained_on_another_model(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same shapes, so that it loads; a copy of the model elsewhere is the same model."""
    out, other, copy = tmp_path / "run", tmp_path / "other", tmp_path / "copy"
    flags = ("--model", tiny_model, "--data", tiny_task["train"], "--out", out, *QUICK)
    assert run(capsys, "train", "--variant", "prefix-tuning", *flags).code == 0
    make_model(other, seed=1)
    shutil.copytree(tiny_model, copy)
    told = "note: the adapter was trained on another model"
    for model, is_told in ((other, True), (copy, False), (tiny_model, False)):
        on = ("--model", model, "--adapter", out, "--data", tiny_task["test"], "generate_limit=2")
        done = run(capsys, "eval", *on)
        assert done.code == 0, done.err
        assert (told in done.err) == is_told


def test_eval_takes_a_subset_of_the_labels(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ("--model", tiny_model, "--data", tiny_task["train"], "--out", out, *QUICK)
    assert run(capsys, "train", "--variant", "ia3", *flags).code == 0
    rows = [
        row for row in Path(tiny_task["test"]).read_text().splitlines() if json.loads(row)["label"] == "fruit"
    ]
    one = tmp_path / "one.jsonl"
    one.write_text("\n".join(rows))
    done = run(capsys, "eval", "--model", tiny_model, "--adapter", out, "--data", one, "--json")
    assert list(done.result["evaluations"]["test"]["per_class"]) == ["animal", "fruit", "metal"]
    one.write_text(rows[0].replace("fruit", "fruti"))
    done = run(capsys, "eval", "--model", tiny_model, "--adapter", out, "--data", one)
    assert done.code == 2
    assert "is not among the task's labels; did you mean 'fruit'" in done.err


def test_compare_prints_one_table(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--model",
        tiny_model,
        "--data",
        tiny_task["train"],
        "--test",
        tiny_task["test"],
        "--out",
        tmp_path,
        *QUICK[1:],
    )
    done = run(capsys, "compare", "--variants", "prefix-tuning-plus, ia3", *flags, "--seeds", 2, "--steps", 3)
    assert done.code == 0, done.err
    assert "prefix-tuning-plus" in done.out
    assert "95 % bootstrap interval" in done.out
    assert "\x1b[" not in done.out + done.err
    again = run(
        capsys,
        "compare",
        "--variants",
        "prefix-tuning-plus,ia3",
        *flags,
        "--seeds",
        2,
        "--steps",
        3,
        "--json",
    )
    assert again.result["entries"][1]["difference"]["verdict"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--variant", "ia3", "--data", "x.csv"], "--out DIR is needed"),
        (["train", "--out", "x"], "--variant"),
        (["compare", "--variants", "ia3,none", "--task", "docstring-area"], "--out DIR is needed"),
        (["compare", "--variants", "ia3,none", "--out", "x", "seed=3"], "give --seeds N"),
        (["compare", "--variants", "ia3,none", "--out", "x", "variant.name=3"], "for one variant"),
        (["compare", "--variants", "ia3,nonne", "--out", "x"], "did you mean 'none'"),
        (["compare", "--variants", "ia3,none", "--out", "x", "--seeds", "0"], "--seeds"),
        (["eval", "--adapter", "nowhere", "--task", "docstring-area"], "nowhere does not exist"),
        (["eval", "--task", "docstring-area", "--split", "tset"], "unknown split 'tset'"),
        (
            ["train", "--variant", "none", "--task", "docstring-area", "--out", "x", "variant.name=y"],
            "has no settings",
        ),
        (["trian"], "did you mean 'train'"),
    ],
)
def test_misuse(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(capsys, *arguments)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

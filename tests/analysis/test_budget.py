"""Equal size, solved and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxpeft.analysis.budget import TOLERANCE, at_budget
from ctxpeft.training import Bench, count_parameters
from tests.cli.running import run as command

NAMES = ["prefix-tuning-plus", "prefix-tuning", "llama-adapter", "lora-qv", "lora-all", "full"]


def test_every_variant_is_nearest_to_the_budget(bench: Bench) -> None:
    model = bench.base.model
    sized = at_budget(model, NAMES, 1024)
    assert [one.method.name for one in sized] == NAMES
    for one in sized[:-1]:
        assert one.parameters == count_parameters(model, one.method)[0]
        off = abs(one.parameters - 1024) > TOLERANCE * 1024
        assert ("the nearest to 1,024 it comes" in one.note) == off
    assert sized[1].parameters == 1024
    assert "count" in sized[1].note
    assert (sized[-1].parameters, sized[-1].note) == (None, "full: not sized")


def test_the_command_compares_at_one_size(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", tiny_model, "--data", tiny_task["train"], "--test", tiny_task["test"], "--seeds", 1)
    settings = ("steps=2", "batch_size=4", "eval_every=0", "generate_limit=0", "--out", tmp_path)
    on = ("compare", "--variants", "prefix-tuning-plus,prefix-tuning,lora-qv", *flags, *settings)
    done = command(capsys, *on, "--budget", "prefix-tuning-plus", "--json")
    assert done.code == 0, done.err
    counts = [entry["trainable"] for entry in done.result["entries"]]
    assert counts[:2] == [512, 512]
    assert "prefix-tuning: count 8, 512 parameters (2,048 as it is)" in done.err
    wrong = command(capsys, *on, "--budget", "prefix-tunning")
    assert (wrong.code, "did you mean 'prefix-tuning'" in wrong.err) == (2, True)
    none = command(capsys, *on, "--budget", "0")
    assert (none.code, "a number of parameters or a variant" in none.err) == (2, True)

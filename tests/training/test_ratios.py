"""Modules that train at rates of their own: in the Trainer, side by side, in an optimizer of one's own, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ctxpeft
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.training import Bench, TrainingConfig, run, run_beside

QUICK = TrainingConfig(
    steps=8,
    batch_size=4,
    learning_rate=1e-3,
    eval_every=0,
    scheduler="constant_with_warmup",
    warmup_ratio=0.0,
)
ONE_STEP = QUICK.model_copy(update={"steps": 1, "max_grad_norm": 0.0})


def two(ratio: float, **hints: Any) -> Variant:
    """A matrix in all layers, shared by the heads, and a scale per channel whose rate is `ratio` times the run's."""
    matrix = {"kind": "matrix", "per": "model"}
    scale = {"kind": "scalar", "activation": "linear", "per": "channel", "init": 1.0}
    modules = [
        {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": matrix},
        {"placement": "outside", "merge": "scale", "memory": {"kind": "none"}, "gate": scale},
    ]
    modules[1]["learning_rate_ratio"] = ratio
    return load_variant({"name": "two", "modules": modules, "training": hints})


def moved(bench: Bench, folder: Path, variant: Variant) -> dict[int, set[float]]:
    """How far the parameters that moved went, by module, to three digits."""
    handle = ctxpeft.attach(bench.base.model, variant, seed=0)
    before = {key: value.clone() for key, value in handle.state_dict().items()}
    handle.detach()
    after = load_file(folder / "adapter" / "adapter.safetensors")
    found: dict[int, set[float]] = {0: set(), 1: set()}
    for key, value in before.items():
        steps = (after[key].float() - value.float()).abs().flatten().tolist()
        found[int(key.split(".")[1 if key.startswith("shared") else 2])] |= {
            float(f"{s:.2g}") for s in steps if s > 1e-6
        }
    return found


@pytest.mark.parametrize("ratio", [1.0, 0.1, 30.0])
def test_the_first_step_of_each_module_is_as_long_as_its_rate(
    bench: Bench, tmp_path: Path, ratio: float
) -> None:
    """Adam's first step is its rate in every coordinate that has a gradient."""
    variant = two(ratio)
    run(bench, variant, ONE_STEP, out=tmp_path / "run", splits=())
    matrix, scale = moved(bench, tmp_path / "run", variant).values()
    assert max(matrix) == pytest.approx(1e-3)
    assert max(scale) == pytest.approx(1e-3 * ratio)


def test_side_by_side_and_by_hand_are_the_trainers(bench: Bench, tmp_path: Path) -> None:
    variant = two(30.0)
    configs = [QUICK.model_copy(update={"learning_rate": rate}) for rate in (1e-3, 1e-2)]
    run_beside(bench, variant, configs, out=[tmp_path / "a", tmp_path / "b"])
    for name, config in zip(("a", "b"), configs, strict=True):
        run(bench, variant, config, out=tmp_path / f"{name}-alone", splits=())
        ours = load_file(tmp_path / name / "adapter" / "adapter.safetensors")
        theirs = load_file(tmp_path / f"{name}-alone" / "adapter" / "adapter.safetensors")
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in theirs)


def test_the_groups_hold_every_parameter_once(bench: Bench) -> None:
    for ratio, rates in ((30.0, [2e-3, 6e-2]), (1.0, [2e-3])):
        handle = ctxpeft.attach(bench.base.model, two(ratio))
        try:
            groups = handle.parameter_groups(2e-3)
            held = [id(p) for group in groups for p in group["params"]]
            assert sorted(held) == sorted(id(p) for p in handle.parameters())
            assert [group["lr"] for group in groups] == pytest.approx(rates)
            torch.optim.AdamW(groups)
        finally:
            handle.detach()


def test_a_tuner_of_peft_has_one_group(bench: Bench) -> None:
    handle = ctxpeft.attach(bench.base.model, "lora-qv")
    try:
        (group,) = handle.parameter_groups(1e-3)
        assert len(group["params"]) == len(list(handle.parameters()))
        assert group["lr"] == 1e-3
    finally:
        handle.detach()


def test_a_run_goes_on_at_the_rates_it_had(bench: Bench, tmp_path: Path) -> None:
    variant, slower = two(30.0), QUICK.model_copy(update={"save_every": 2, "scheduler": "cosine"})
    whole = run(bench, variant, slower, out=tmp_path / "whole", splits=("validation",))

    class CutError(Exception):
        pass

    class Halting(ctxpeft.training.Silent):
        def update(self, step: int, text: str) -> None:
            if step == 5:
                raise CutError

    with pytest.raises(CutError):
        run(bench, variant, slower, out=tmp_path / "cut", splits=("validation",), reporter=Halting())
    resumed = run(bench, variant, slower, out=tmp_path / "cut", splits=("validation",))
    assert "resumed from checkpoint-4" in resumed.notes[-1]
    assert resumed.evaluations["validation"].metrics == whole.evaluations["validation"].metrics
    theirs = load_file(tmp_path / "whole" / "adapter" / "adapter.safetensors")
    ours = load_file(tmp_path / "cut" / "adapter" / "adapter.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_ratio_is_another_design_and_the_usual_ratio_none() -> None:
    plain = load_variant({"name": "two", "modules": [m.model_dump() for m in two(1.0).modules]})
    assert plain.fingerprint() == two(1.0).fingerprint() != two(30.0).fingerprint()
    assert "learning_rate_ratio" not in two(1.0).to_yaml()
    assert load_variant(two(30.0).to_dict()) == two(30.0)


def test_a_ratio_divides_the_rate_that_a_block_declares() -> None:
    scale = two(1.0).modules[1].usual_rate()
    assert two(30.0).modules[1].usual_rate() == pytest.approx(scale / 30)
    assert two(1e3).usual_rate() == pytest.approx(scale / 1e3)
    assert two(30.0, learning_rate=0.5).usual_rate() == 0.5

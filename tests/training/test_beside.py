"""Rates of one variant trained side by side reach what they reach one by one."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ctxpeft.training import (
    Bench,
    Member,
    RunResult,
    Silent,
    TrainingConfig,
    _beside,
    run,
    run_beside,
    why_apart,
)

RATES = (1e-3, 1e-2, 1e-1)
QUICK = TrainingConfig(steps=8, batch_size=4, eval_every=0, group_by_length=True)
MEMORIES = [
    "prefix-tuning-plus",
    "prefix-tuning",
    "prompt-tuning",
    "prefix-tuning-plus-shared-model",
    "parallel-adapter-ffn",
    "llama-adapter",
    "steering-vector",
    "prefix-tuning-plus-log-mass",
]


def configs(**changes: Any) -> list[TrainingConfig]:
    return [QUICK.model_copy(update={"learning_rate": rate, **changes}) for rate in RATES]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(next((folder / "adapter").glob("*.safetensors")))
    return found


@pytest.mark.parametrize("variant", MEMORIES)
def test_equal_to_runs_one_by_one(bench: Bench, variant: str, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in bench.base.model.state_dict().items()}
    out = [tmp_path / f"beside-{i}" for i in range(3)]
    beside = run_beside(bench, variant, configs(), out=out, splits=("validation", "test"))
    after = bench.base.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert all(p.grad is None for p in bench.base.model.parameters())
    assert len({round(r.evaluations["validation"].metrics["token_loss"], 4) for r in beside}) == 3
    for i, (config, mine) in enumerate(zip(configs(), beside, strict=True)):
        alone = run(
            bench, variant, config, out=tmp_path / f"alone-{i}", splits=("validation", "test"), generate=0
        )
        for name in ("learning_rate", "seed", "steps", "tokens", "trainable", "deployed", "stopped"):
            assert getattr(mine, name) == getattr(alone, name)
        assert mine.train_loss == pytest.approx(alone.train_loss, rel=1e-4)
        for split in ("validation", "test"):
            there, here = alone.evaluations[split], mine.evaluations[split]
            assert here.metrics == pytest.approx(there.metrics, rel=1e-4)
            assert len(here.records) == len(there.records)
        theirs, ours = adapter(tmp_path / f"alone-{i}"), adapter(out[i])
        assert list(theirs) == list(ours)
        for name, value in theirs.items():
            assert torch.allclose(value, ours[name], atol=1e-4), name


def test_several_variants_in_one_pass(bench: Bench, tmp_path: Path) -> None:
    """Each at rates of its own, of other sites, placements and layers, one of them with a virtual prompt."""
    pairs = [(variant, rate) for variant in MEMORIES[:6] for rate in RATES[:2]]
    variants = [variant for variant, _ in pairs]
    several = [QUICK.model_copy(update={"learning_rate": rate}) for _, rate in pairs]
    out = [tmp_path / f"beside-{i}" for i in range(len(pairs))]
    beside = run_beside(bench, variants, several, out=out)
    assert [(r.method, r.learning_rate) for r in beside] == pairs
    for i, ((variant, _), config, mine) in enumerate(zip(pairs, several, beside, strict=True)):
        alone = run(bench, variant, config, out=tmp_path / f"alone-{i}", splits=("validation",), generate=0)
        for name in ("fingerprint", "seed", "steps", "tokens", "trainable", "deployed", "stopped"):
            assert getattr(mine, name) == getattr(alone, name)
        there, here = alone.evaluations["validation"], mine.evaluations["validation"]
        assert here.metrics == pytest.approx(there.metrics, rel=1e-4)
        theirs, ours = adapter(tmp_path / f"alone-{i}"), adapter(out[i])
        assert list(theirs) == list(ours)
        for name, value in theirs.items():
            assert torch.allclose(value, ours[name], atol=1e-4), name
    with pytest.raises(ValueError, match="2 variants for 3 configurations"):
        run_beside(bench, MEMORIES[:2], configs(), out=out[:3])
    assert "routed to lora-qv" in why_apart(bench, ["prefix-tuning", "lora-qv", "prefix-tuning"], configs())


def test_finished_rates_are_read_and_the_others_train(bench: Bench, tmp_path: Path) -> None:
    out = [tmp_path / str(i) for i in range(3)]
    first = run_beside(bench, "prefix-tuning-plus", configs(), out=out)
    (out[1] / "result.json").unlink()
    again = run_beside(bench, "prefix-tuning-plus", configs(), out=out)
    assert again[0] == RunResult.read(out[0]) == first[0]
    assert again[1].notes[-1] == "trained side by side with 0 other runs"
    assert again[1].evaluations["validation"].metrics == pytest.approx(
        first[1].evaluations["validation"].metrics, rel=1e-4
    )


def test_a_rate_that_diverges_leaves_the_others_alone(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = _beside._member

    def wild(handle: Any, config: TrainingConfig) -> Member:
        found = member(handle, config)
        if config.learning_rate == RATES[1]:
            next(handle.parameters()).data.fill_(torch.nan)
        return found

    out = [tmp_path / str(i) for i in range(3)]
    monkeypatch.setattr(_beside, "_member", wild)
    found = run_beside(bench, "steering-vector", configs(max_grad_norm=0.0), out=out)
    monkeypatch.undo()
    assert [r.stopped for r in found] == [None, "diverged", None]
    assert found[1].evaluations == {}
    assert found[1].steps < 8
    for config, mine in list(zip(configs(max_grad_norm=0.0), found, strict=True))[::2]:
        alone = run(bench, "steering-vector", config, splits=("validation",), generate=0)
        assert mine.evaluations["validation"].metrics == pytest.approx(
            alone.evaluations["validation"].metrics, rel=1e-4
        )


def test_an_interrupt_stops_after_the_step_and_gives_the_model_back(bench: Bench, tmp_path: Path) -> None:
    class Interrupting(Silent):
        def __init__(self) -> None:
            self.steps = 0

        def update(self, step: int, text: str) -> None:
            self.steps = step
            if step == 2:
                signal.raise_signal(signal.SIGINT)

    told = Interrupting()
    out = [tmp_path / str(i) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        run_beside(bench, "prefix-tuning-plus", configs(), out=out, reporter=told)
    assert told.steps == 2
    assert not hasattr(bench.base.model, "_ctxpeft")
    assert all(p.requires_grad for p in bench.base.model.parameters())
    assert not any((folder / "result.json").exists() for folder in out)
    assert len(run_beside(bench, "prefix-tuning-plus", configs(), out=out)) == 3


@pytest.mark.parametrize(
    ("variant", "changes", "reason"),
    [
        ("lora-qv", {}, "routed"),
        ("none", {}, "routed"),
        ("prefix-tuning-plus", {"weight_decay": 0.1}, "weight decay"),
        ("prefix-tuning-plus", {"gradient_accumulation": 2}, "accumulation"),
        ("prefix-tuning-plus", {"patience": 2}, "held-out"),
        ("prefix-tuning-plus", {"eval_every": 2}, "held-out"),
    ],
)
def test_what_has_to_be_trained_apart(
    bench: Bench, variant: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert reason in why_apart(bench, variant, configs(**changes))
    with pytest.raises(ValueError, match=reason):
        run_beside(bench, variant, configs(**changes), out=[tmp_path / str(i) for i in range(3)])
    assert not list(tmp_path.iterdir())


def test_other_settings_and_dropout_are_trained_apart(bench: Bench) -> None:
    assert why_apart(bench, "prefix-tuning-plus", configs()) == ""
    assert "differs" in why_apart(bench, "prefix-tuning-plus", [*configs(), *configs(seed=1)])
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1))
    drawing = dataclasses.replace(bench, base=dataclasses.replace(bench.base, model=model))
    assert "dropout" in why_apart(drawing, "prefix-tuning-plus", configs())

"""One run: reproducible, honest about the base, stoppable."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ctxpeft
from ctxpeft.tasks import build_task, task_from_files, with_settings
from ctxpeft.training import (
    BASELINES,
    Bench,
    RunResult,
    TrainingConfig,
    load_base,
    load_method,
    prepare,
    run,
)
from ctxpeft.training._job import _held_out
from ctxpeft.training._order import OrderedExamples, data_order
from tests.tasks.tiny import write_jsonl

QUICK = TrainingConfig(steps=8, batch_size=4, learning_rate=1e-2, eval_every=4, eval_limit=8)


def _state(bench: Bench) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in bench.base.model.state_dict().items()}


def _unchanged(bench: Bench, before: dict[str, torch.Tensor]) -> None:
    after = bench.base.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.requires_grad for p in bench.base.model.parameters())
    assert all(p.grad is None for p in bench.base.model.parameters())


@pytest.mark.parametrize("variant", ["prefix-tuning-plus", "prefix-tuning", "lora-qv", *BASELINES])
def test_the_base_is_bit_exact_afterwards(bench: Bench, variant: str) -> None:
    before, attributes, use_cache = (
        _state(bench),
        set(vars(bench.base.model)),
        bench.base.model.config.use_cache,
    )
    result = run(bench, variant, QUICK, splits=("test",))
    _unchanged(bench, before)
    assert set(vars(bench.base.model)) == attributes
    assert bench.base.model.config.use_cache == use_cache
    assert not bench.base.model.training
    assert (result.trainable == 0) == (variant == "none")
    assert result.steps == (0 if variant in ("none", "probe") else 8)
    assert len(result.evaluations["test"].records) == 30


def test_the_base_is_bit_exact_after_an_error(bench: Bench) -> None:
    before = _state(bench)

    def fail(step: int, tokens: int, loss: float) -> bool:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        run(bench, "prefix-tuning", QUICK, on_evaluate=fail)
    _unchanged(bench, before)


def test_equal_seeds_are_bit_identical_and_others_are_not(bench: Bench, tmp_path: Path) -> None:
    results, adapters = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(results) + 17)
        config = QUICK.model_copy(update={"seed": seed})
        results.append(run(bench, "prefix-tuning-plus", config, out=tmp_path / name))
        adapters.append(load_file(tmp_path / name / "adapter" / "adapter.safetensors"))
    assert all(torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])
    assert not all(torch.equal(adapters[0][key], adapters[2][key]) for key in adapters[0])
    assert results[0].evaluations == results[1].evaluations
    assert results[0].held_out == results[1].held_out
    assert results[0].evaluations["test"].records[0].loss != results[2].evaluations["test"].records[0].loss
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in "ab"]
    assert metrics[0] == metrics[1]


def test_training_learns(bench: Bench) -> None:
    config = QUICK.model_copy(update={"steps": 40, "batch_size": 16, "learning_rate": 3e-2, "eval_every": 20})
    result = run(
        bench, "full", config.model_copy(update={"learning_rate": 3e-3}), splits=("validation", "test")
    )
    assert result.held_out[-1].loss < 0.6 * math.log(len(bench.base.tokenizer))
    frozen = run(bench, "none", splits=("test",)).evaluations["test"]
    assert result.evaluations["test"].metrics["token_loss"] < frozen.metrics["token_loss"] / 2
    adapted = run(bench, "lora-all", config, splits=("test",)).evaluations["test"]
    assert adapted.metrics["token_loss"] < frozen.metrics["token_loss"]


def test_every_variant_sees_the_same_batches(bench: Bench) -> None:
    seen: list[list[list[int]]] = []

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        if module.training:
            seen[-1].append(kwargs["input_ids"].flatten().tolist())

    hook = bench.base.model.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        for variant in ("prefix-tuning", "lora-qv"):
            seen.append([])
            run(bench, variant, QUICK, splits=())
    finally:
        hook.remove()
    assert len(seen[0]) == 8
    assert seen[0] == seen[1]


def test_data_order_is_a_function_of_the_seed() -> None:
    lengths = [5, 3, 9, 1, 7, 2, 8]
    order = data_order(lengths, 21, 3, seed=4)
    assert order == data_order(lengths, 21, 3, seed=4) != data_order(lengths, 21, 3, seed=5)
    for epoch in range(3):
        assert sorted(order[7 * epoch : 7 * epoch + 7]) == list(range(7))
    grouped = data_order(lengths, 21, 3, seed=4, group=True)
    assert sorted(grouped) == sorted(order)
    assert _spread(grouped, lengths) < _spread(order, lengths)


def _spread(order: list[int], lengths: list[int]) -> int:
    """How unlike the lengths within batches of three are."""
    batches = [[lengths[i] for i in order[k : k + 3]] for k in range(0, len(order), 3)]
    return sum(max(batch) - min(batch) for batch in batches)


def test_tokens_are_counted(bench: Bench) -> None:
    data = OrderedExamples(bench.train, 5, 4, seed=0)
    assert data.tokens_after(0) == 0
    assert data.tokens_after(5) == sum(len(data[i]["input_ids"]) for i in range(20))
    result = run(bench, "ia3", QUICK, splits=())
    assert result.tokens == OrderedExamples(bench.train, 8, 4, seed=0).tokens_after(8)


def test_on_evaluate_sees_and_stops(bench: Bench) -> None:
    calls: list[tuple[int, int, float]] = []

    def stop_at_four(step: int, tokens: int, loss: float) -> bool:
        calls.append((step, tokens, loss))
        return step >= 4

    config = QUICK.model_copy(update={"steps": 9, "eval_every": 2})
    result = run(bench, "prefix-tuning", config, on_evaluate=stop_at_four)
    assert [c[0] for c in calls] == [2, 4]
    assert (result.stopped, result.steps, result.evaluations) == ("callback", 4, {})
    assert [(h.step, h.tokens, h.loss) for h in result.held_out] == calls
    assert result.last_loss == calls[-1][2]


def test_the_last_step_is_measured(bench: Bench) -> None:
    result = run(bench, "ia3", QUICK.model_copy(update={"steps": 7}), splits=())
    assert [h.step for h in result.held_out] == [4, 7]
    assert run(bench, "ia3", QUICK.model_copy(update={"eval_every": 0}), splits=()).held_out == []


def test_held_out_loss_is_the_mean_over_the_sample(bench: Bench) -> None:
    result = run(bench, "prefix-tuning-plus", QUICK.model_copy(update={"learning_rate": 1e-12}), splits=())
    from ctxpeft.tasks import Collator

    features = _held_out(bench.held_out, 8)
    with torch.no_grad():
        expected = bench.base.model(**Collator(1)(features)).loss.item()
    assert result.last_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("keep", [True, False])
def test_early_stopping_restores_the_best(bench: Bench, tmp_path: Path, keep: bool) -> None:
    config = TrainingConfig(
        steps=60,
        batch_size=4,
        learning_rate=0.3,
        eval_every=2,
        eval_limit=9,
        patience=2,
        scheduler="constant_with_warmup",
    )
    out = tmp_path / "run" if keep else None
    result = run(bench, "lora-all", config, out=out, splits=("test",))
    losses = [h.loss for h in result.held_out]
    assert result.stopped == "early"
    assert result.steps < 60
    assert losses.index(min(losses)) == len(losses) - 3
    if out is None:
        return
    assert not (out / "checkpoints").exists()
    handle = ctxpeft.load(bench.base.model, out / "adapter")
    try:
        from ctxpeft.tasks import Collator

        with torch.no_grad():
            loss = bench.base.model(**Collator(1)(_held_out(bench.held_out, 9))).loss.item()
    finally:
        handle.detach()
    assert loss == pytest.approx(result.best_loss, rel=1e-5)


def test_divergence_is_told(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(bench.base.model), "forward", _spoilt(type(bench.base.model).forward), raising=True
    )
    result = run(bench, "prefix-tuning-plus", QUICK, out=tmp_path / "run")
    assert (result.stopped, result.evaluations, result.last_loss) == ("diverged", {}, math.inf)
    assert RunResult.read(tmp_path / "run").stopped == "diverged"


def _spoilt(forward: Any) -> Any:
    def spoilt(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        if output.loss is not None:
            output.loss = output.loss * float("nan")
        return output

    return spoilt


def test_gradient_checkpointing_and_accumulation_change_nothing(bench: Bench) -> None:
    plain = run(bench, "prefix-tuning", QUICK, splits=())
    again = run(bench, "prefix-tuning", QUICK.model_copy(update={"gradient_checkpointing": True}), splits=())
    assert not any(getattr(m, "gradient_checkpointing", False) for m in bench.base.model.modules())
    halves = {"batch_size": 2, "gradient_accumulation": 2}
    split = run(bench, "prefix-tuning", QUICK.model_copy(update=halves), splits=())
    for other in (again, split):
        assert other.last_loss == pytest.approx(plain.last_loss, rel=1e-4)
        assert other.tokens == plain.tokens


def test_hints_fill_what_is_left_open() -> None:
    plain = ctxpeft.load_variant("prefix-tuning").to_dict()
    variant = ctxpeft.load_variant(plain | {"training": {"learning_rate": 0.05, "warmup_ratio": 0.2}})
    full = TrainingConfig(epochs=2, batch_size=8, weight_decay=0.1).resolved(load_method(variant), 100)
    assert (full.learning_rate, full.warmup_ratio, full.weight_decay, full.steps) == (0.05, 0.2, 0.1, 25)
    assert full.resolved(load_method(variant), 7) == full
    assert TrainingConfig(learning_rate=1e-4).resolved(load_method(variant), 100).learning_rate == 1e-4
    assert load_method(variant).fingerprint() == variant.fingerprint()


def test_a_bfloat16_base_and_length_groups(tiny_model: Path, bench: Bench) -> None:
    half = prepare(load_base(tiny_model, dtype="bfloat16"), bench.task)
    result = run(
        half, "prefix-tuning-plus", QUICK.model_copy(update={"group_by_length": True}), splits=("test",)
    )
    assert math.isfinite(result.last_loss)
    assert half.describe()["model"] != bench.describe()["model"]


@pytest.mark.parametrize(
    "row", [{"text": "we saw {} old foxes"}, {"prompt": "we saw {}", "completion": "foxes {}"}]
)
def test_other_kinds_train_and_compare(tiny_model: Path, tmp_path: Path, row: dict[str, str]) -> None:
    rows = [{key: value.format(i) for key, value in row.items()} for i in range(40)]
    spec = task_from_files([str(write_jsonl(tmp_path / "d.jsonl", rows))])
    task = build_task(with_settings(spec, {"test_fraction": 0.3, "generate_limit": 2}))
    other = prepare(load_base(tiny_model), task)
    result = run(other, "full", QUICK.model_copy(update={"steps": 12}), splits=("test",))
    frozen = run(other, "none", splits=("test",)).evaluations["test"]
    found = result.evaluations["test"]
    assert (found.primary, found.greater_is_better) == ("token_loss", False)
    assert found.value < frozen.value
    assert ("exact_match" in found.metrics) == ("prompt" in row)

"""The stock Trainer on an adapted model, nothing overridden: checkpoints, resuming, the best model, low precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

import ctxpeft
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.cases import VARIANTS
from tests.training.stock import arguments, losses, rows

variants = pytest.mark.parametrize("variant", ["prefix-tuning", "mixed", "wide"])
pytestmark = pytest.mark.filterwarnings("ignore")


def trainer_for(variant: str, folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    model = tiny_model().to(dtype)
    handle = ctxpeft.attach(model, VARIANTS[variant], seed=0)
    perturb(handle, std=0.05)
    data = rows(16, one=True)
    return handle, Trainer(model, arguments(folder, **options), train_dataset=data, eval_dataset=data[:4])


@variants
def test_resuming_continues_the_same_curve(variant: str, tmp_path: Path) -> None:
    """Stopped after half of the steps and resumed in a fresh model: every loss and parameter bit for bit."""
    through, trainer = trainer_for(variant, tmp_path / "a")
    trainer.train()
    resumed, second = trainer_for(variant, tmp_path / "b")
    for parameter in resumed.parameters():
        parameter.data.zero_()
    second.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    assert losses(second) == losses(trainer)
    assert len(losses(trainer)) == 8
    assert all(torch.equal(p, q) for p, q in zip(through.parameters(), resumed.parameters(), strict=True))


@variants
def test_checkpoints_hold_the_adapter_and_nothing_else(variant: str, tmp_path: Path) -> None:
    handle, trainer = trainer_for(variant, tmp_path, max_steps=4)
    trainer.train()
    tensors = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    sizes = sum(t.numel() for t in tensors.values())
    assert sizes == sum(p.numel() for p in handle.parameters())
    assert all("ctxpeft" in key for key in tensors)


@variants
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(variant: str, reentrant: bool, tmp_path: Path) -> None:
    _, plain = trainer_for(variant, tmp_path / "a")
    plain.train()
    _, recomputed = trainer_for(
        variant,
        tmp_path / "b",
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": reentrant},
    )
    if reentrant:
        recomputed.model.enable_input_require_grads()
    recomputed.train()
    assert losses(recomputed) == pytest.approx(losses(plain), rel=1e-5)


@variants
def test_the_best_model_comes_back(variant: str, tmp_path: Path) -> None:
    """Told that a high loss is good, the Trainer restores an early checkpoint, and that is what the model holds."""
    handle, trainer = trainer_for(
        variant,
        tmp_path,
        max_steps=8,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
    )
    trainer.train()
    evaluations = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    best = max(evaluations, key=lambda step: evaluations[step])
    assert best < 8
    assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{best}"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(evaluations[best], rel=1e-6)
    kept = load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors")
    assert sum(t.double().sum() for t in kept.values()) == pytest.approx(
        float(sum(p.double().sum() for p in handle.parameters()))
    )


@variants
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_bases_train_full_precision_memories(
    variant: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    handle, trainer = trainer_for(
        variant, tmp_path, dtype, max_steps=30, save_strategy="no", learning_rate=1e-2
    )
    trainer.train()
    curve = losses(trainer)
    assert sum(curve[-5:]) < 0.98 * sum(curve[:5])
    assert {p.dtype for p in handle.parameters()} == {torch.float32}
    moments = [s["exp_avg"] for s in trainer.optimizer.state.values()]
    assert {m.dtype for m in moments} == {torch.float32}


def test_autocast_leaves_the_memories_alone(tmp_path: Path) -> None:
    """`bf16=True` on a base in fp32: memories are read in fp32 inside the autocast region."""
    _, trainer = trainer_for("mixed", tmp_path, bf16=True, max_steps=20, save_strategy="no")
    seen = set()
    for module in trainer.model.modules():
        if type(module).__name__ == "MatrixMemory":
            module.register_forward_hook(lambda m, args, out: seen.add(out.n.dtype))
    trainer.train()
    assert seen == {torch.float32}
    assert losses(trainer)[-1] < losses(trainer)[0]

"""A base quantised to 8 bits by torchao, trained by the stock Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TorchAoConfig, Trainer

import ctxpeft
from ctxpeft.testing.tiny import tiny_model
from tests.extras import needs
from tests.hosts.cases import VARIANTS
from tests.training.stock import arguments, losses, rows

needs("torchao", "quant")


@pytest.fixture
def base(tmp_path: Path) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    tiny_model(hidden_size=64, head_dim=16).save_pretrained(tmp_path / "base")
    return AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), dtype=torch.float32
    )


@pytest.mark.parametrize("variant", ["prefix-tuning-plus", "mixed"])
def test_the_stock_trainer_trains_it(base: Any, tmp_path: Path, variant: str) -> None:
    quantizer = base.hf_quantizer
    before = base(rows(2)).logits
    with pytest.raises(ValueError, match="purely quantized"):
        Trainer(base, arguments(tmp_path / "no"))
    handle = ctxpeft.attach(base, VARIANTS[variant], seed=0)
    trainer = Trainer(
        base, arguments(tmp_path / "run", max_steps=30, learning_rate=1e-2), train_dataset=rows(8, one=True)
    )
    trainer.train()
    curve = losses(trainer)
    assert sum(curve[-5:]) < 0.98 * sum(curve[:5])
    checkpoint = load_file(tmp_path / "run" / "checkpoint-30" / "model.safetensors")
    assert len(checkpoint) == len(list(handle.parameters()))
    handle.save(tmp_path / "adapter")
    trained = base(rows(2)).logits
    handle.detach()
    assert base.hf_quantizer is quantizer
    assert torch.equal(base(rows(2)).logits, before)
    ctxpeft.load(base, tmp_path / "adapter")
    assert torch.equal(base(rows(2)).logits, trained)

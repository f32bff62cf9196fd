"""TRL's SFTTrainer and DPOTrainer on an adapted model object, with real instructions and preferences."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ctxpeft
from tests.extras import needs

needs("trl", "trl")
needs("datasets", "trl")
pytestmark = pytest.mark.filterwarnings("ignore")
variants = pytest.mark.parametrize("variant", ["prefix-tuning-plus", "prefix-tuning"])
RATES = {"prefix-tuning-plus": 1e-2, "prefix-tuning": 1e-1}
COMMON = {
    "per_device_train_batch_size": 8,
    "max_length": 64,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}


@pytest.fixture
def real(shared: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no model at {folder}")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def read(shared: Path, name: str, count: int) -> Any:
    path = shared / "data" / "instruct" / name
    if not path.is_file():
        pytest.skip(f"no instructions at {path}")
    return json.loads(path.read_text(encoding="utf-8"))[:count]


def base_of(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "ctxpeft" not in n}


@variants
def test_sft(real: tuple[Any, Any], shared: Path, tmp_path: Path, variant: str) -> None:
    """The loss falls on what is trained on, the base stands still, the adapter alone holds what was learnt."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = real
    rows = read(shared, "alpaca_en_demo.json", 16)
    data = Dataset.from_list(
        [{"prompt": f"{r['instruction']}\n", "completion": r["output"][:150]} for r in rows]
    )
    before = base_of(model)
    handle = ctxpeft.attach(model, variant, seed=0)
    trainer = SFTTrainer(
        model,
        args=SFTConfig(str(tmp_path), max_steps=16, **{**COMMON, "learning_rate": RATES[variant]}),
        train_dataset=data,
        processing_class=tokenizer,
    )
    first = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    last = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert last < 0.95 * first
    assert all(torch.equal(p, before[n]) for n, p in base_of(model).items())
    with handle.disabled():
        base = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert last < 0.95 * base


@variants
def test_dpo(real: tuple[Any, Any], shared: Path, tmp_path: Path, variant: str) -> None:
    """The reference that TRL loads is the base without the adapter; the margin of the chosen answers grows."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = real
    rows = read(shared, "dpo_en_demo.json", 16)
    data = Dataset.from_list(
        [
            {
                "prompt": f"{r['conversations'][-1]['value'][:80]}\n",
                "chosen": r["chosen"]["value"][:80],
                "rejected": r["rejected"]["value"][:80],
            }
            for r in rows
        ]
    )
    before = base_of(model)
    ctxpeft.attach(model, variant, seed=0)
    trainer = DPOTrainer(
        model,
        args=DPOConfig(str(tmp_path), max_steps=16, **COMMON),
        train_dataset=data,
        processing_class=tokenizer,
    )
    assert not any("ctxpeft" in name for name, _ in trainer.ref_model.named_parameters())
    trainer.train()
    margins = [e["rewards/margins"] for e in trainer.state.log_history if "rewards/margins" in e]
    assert sum(margins[-4:]) / 4 > sum(margins[:4]) / 4 + 0.1
    assert all(torch.equal(p, before[n]) for n, p in base_of(model).items())
    assert all(torch.equal(p, before[n]) for n, p in trainer.ref_model.named_parameters())

"""What the tests of the stock Trainer share: rows of tokens, arguments, loss curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments


def rows(count: int, one: bool = False) -> Any:
    """Random tokens: a tensor (count, 8), or examples for the Trainer."""
    drawn = torch.randint(3, 61, (count, 8), generator=torch.Generator().manual_seed(5))
    return [{"input_ids": row.tolist(), "labels": row.tolist()} for row in drawn] if one else drawn


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Training arguments of a quiet run on the CPU that logs every step."""
    settings = {
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-2,
        "logging_steps": 1,
        "save_steps": 4,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TrainingArguments(output_dir=str(folder), **{**settings, **options})


def losses(trainer: Trainer) -> list[float]:
    """The training loss of every step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

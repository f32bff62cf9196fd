"""Checkpoints that survive a kill: written beside, then moved into place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, tokens read, seconds spent in steps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save(
    path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], progress: Progress
) -> None:
    """Write weights, optimiser states and progress to one file, atomically."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": vars(progress),
    }
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def load(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Restore what `save` wrote, in place, and return the progress."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])

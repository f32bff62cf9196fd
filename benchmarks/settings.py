"""What is measured, and how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One table: a model, a batch of so many rows of so many tokens, a type, compiled or not."""

    model: str
    batch: int
    tokens: int
    dtype: str = "float32"
    compiled: bool = False
    only: tuple[str, ...] | None = None

    def plain(self, title: str) -> dict[str, Any]:
        """For JSON; `title` is the model's name for people."""
        return {
            "model": title,
            "batch": self.batch,
            "tokens": self.tokens,
            "dtype": self.dtype,
            "compiled": self.compiled,
        }


FEW = ("prefix-tuning-plus", "prefix-tuning", "llama-adapter", "PEFT prefix tuning", "PEFT LoRA (q, v)")
"""What is measured where all would take too long."""


@dataclass(frozen=True)
class Settings:
    """The cases of every section. rounds: for steps and prefills; decoding, being quick, takes three times as many."""

    device: torch.device
    steps: tuple[Case, ...]
    decodes: tuple[Case, ...]
    prefills: tuple[Case, ...]
    sizes: tuple[Case, ...]
    model: str
    rounds: int
    sections: tuple[str, ...] = field(default=("step", "decode", "prefill", "size", "adapters", "scaling"))


def quick(device: torch.device, model: str | None) -> Settings:
    """Less than ten minutes on one thread of a CPU."""
    large, small = model or "llama-26M", "llama-3M"
    return Settings(
        device=device,
        steps=(Case(large, 2, 256), Case(small, 4, 64)),
        decodes=(Case(large, 1, 64), Case(large, 1, 512), Case(large, 1, 2048), Case(small, 1, 64)),
        prefills=(Case(large, 1, 512),),
        sizes=(Case(large, 2, 256),),
        model=small,
        rounds=9,
    )


def full(device: torch.device, model: str | None) -> Settings:
    """Every axis, one at a time."""
    sizes = (model,) if model else ("llama-3M", "llama-26M", "llama-100M")
    large = sizes[-1]
    base = model or "llama-26M"
    half = "bfloat16"
    return Settings(
        device=device,
        steps=(
            *(Case(name, 4, 256) for name in sizes),
            *(Case(base, batch, 256, only=FEW) for batch in (1, 16)),
            *(Case(base, 1, tokens, only=FEW) for tokens in (64, 1024, 2048)),
            Case(base, 4, 256, half, only=FEW),
            Case(base, 4, 256, compiled=True, only=FEW),
        ),
        decodes=(
            *(Case(name, 1, tokens) for name in sizes for tokens in (64, 512, 2048)),
            Case(base, 16, 512, only=FEW),
            Case(base, 1, 512, half, only=FEW),
            Case(base, 1, 512, compiled=True, only=FEW),
        ),
        prefills=tuple(Case(large, 1, tokens) for tokens in (64, 512, 2048)),
        sizes=tuple(Case(name, 4, 256) for name in sizes),
        model=base,
        rounds=15,
    )

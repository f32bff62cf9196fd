"""What is measured, and how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass
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


FEW = (
    "prefix-tuning-plus",
    "prefix-tuning",
    "llama-adapter",
    "PEFT prefix tuning",
    "PEFT LLaMA-Adapter",
    "PEFT LoRA (q, v)",
)
"""What is measured where all would take too long."""
COMPILED = ("prefix-tuning-plus", "prefix-tuning", "PEFT LoRA (q, v)")
QWEN = "qwen2.5-0.5B"
READ = ("prefix-tuning-plus",)
PROFILED = ("prefix-tuning-plus", "prefix-tuning", "llama-adapter", "PEFT LoRA (q, v)")


@dataclass(frozen=True)
class Settings:
    """The cases of every section. rounds: for steps and prefills; decoding, being quick, takes twice as many.
    shared: the model of many adapters. answered: steps on prompts with answers. colds: the operators of a read, amid a
    token. attention: transformers' name of the backend."""

    device: torch.device
    steps: tuple[Case, ...]
    decodes: tuple[Case, ...]
    prefills: tuple[Case, ...]
    sizes: tuple[Case, ...]
    profiled: Case
    shared: str
    rounds: int
    answered: tuple[Case, ...] = (Case("llama-3M", 4, 64),)
    colds: tuple[Case, ...] = (Case("llama-3M", 1, 64, only=READ),)
    attention: str = "sdpa"
    resident: int = 512
    points: int = 4


def quick(device: torch.device, model: str | None) -> Settings:
    """Minutes on one thread of a CPU that is not shared."""
    large, small = model or "llama-26M", "llama-3M"
    half = "bfloat16"
    steps: tuple[Case, ...] = (
        Case(small, 4, 64),
        Case(large, 1, 128, only=FEW),
        Case(large, 1, 128, half, only=FEW),
        Case(large, 1, 128, compiled=True, only=COMPILED),
    )
    decodes: tuple[Case, ...] = (
        Case(small, 1, 64),
        *(Case(large, 1, tokens, only=FEW) for tokens in (64, 512, 2048)),
        Case(large, 1, 512, half, only=FEW),
        Case(large, 1, 512, compiled=True, only=COMPILED),
    )
    if model is None:
        steps += (Case("llama-100M", 1, 64, only=FEW),)
        decodes += (Case("llama-100M", 1, 512, only=FEW), Case(QWEN, 1, 64, only=COMPILED))
    return Settings(
        device=device,
        steps=steps,
        decodes=decodes,
        prefills=(Case(large, 1, 256, only=FEW),),
        sizes=(Case(small, 4, 64),),
        profiled=Case(small, 4, 64, only=PROFILED),
        shared=small,
        rounds=9,
        answered=(
            Case(small, 16, 64),
            *(Case(name, 4, 64) for name in (large, *((QWEN,) if model is None else ()))),
        ),
        colds=tuple(
            Case(name, 1, 64, only=READ) for name in (small, large, *((QWEN,) if model is None else ()))
        ),
    )


def full(device: torch.device, model: str | None) -> Settings:
    """Every axis, one at a time: batches 1 to 16, 64 to 2048 tokens, bf16, torch.compile."""
    sizes = (model,) if model else ("llama-3M", "llama-26M", "llama-100M")
    if not model and device.type == "cuda":
        sizes += ("llama-1B",)
    large = sizes[-1]
    base = model or ("llama-1B" if device.type == "cuda" else "llama-26M")
    half = "bfloat16"
    return Settings(
        device=device,
        steps=(
            *(Case(name, 4, 256) for name in sizes),
            *(Case(base, batch, 256, only=FEW) for batch in (1, 16)),
            *(Case(base, 1, tokens, only=FEW) for tokens in (64, 1024, 2048)),
            Case(base, 4, 256, half, only=FEW),
            Case(base, 4, 256, compiled=True, only=COMPILED),
        ),
        decodes=(
            *(Case(name, 1, tokens) for name in sizes for tokens in (64, 512, 2048)),
            Case(base, 16, 512, only=FEW),
            Case(base, 1, 512, half, only=FEW),
            Case(base, 1, 512, compiled=True, only=COMPILED),
        ),
        prefills=tuple(Case(large, 1, tokens) for tokens in (64, 512, 2048)),
        sizes=tuple(Case(name, 4, 256) for name in sizes),
        profiled=Case(base, 2, 256, only=PROFILED),
        shared=base,
        rounds=15,
        answered=tuple(Case(name, 16, 256) for name in (*sizes, *((QWEN,) if model is None else ()))),
        colds=tuple(Case(name, 1, 512, only=READ) for name in (*sizes, *((QWEN,) if model is None else ()))),
    )

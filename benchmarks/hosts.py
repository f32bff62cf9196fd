"""The models that are measured: one from a folder, or random ones of a stated shape."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

LONGEST = 8192
SHAPES: dict[str, dict[str, int]] = {
    "llama-3M": {
        "hidden_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
        "vocab_size": 4096,
    },
    "llama-26M": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 1344,
        "vocab_size": 4096,
    },
    "llama-100M": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "intermediate_size": 2048,
        "vocab_size": 16000,
    },
    "qwen2.5-0.5B": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
    },
    "llama-1B": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
    },
}


def host(name: str, device: torch.device, dtype: torch.dtype, attention: str = "sdpa", **changes: int) -> Any:
    """A model by the name of a shape or the path of a folder, frozen, in eval mode.

    attention: transformers' name of its backend. `changes` are of its shape.
    """
    if name in SHAPES:
        config: Any = LlamaConfig(**{**SHAPES[name], "max_position_embeddings": LONGEST, **changes})  # type: ignore[arg-type]
    else:
        config = AutoConfig.from_pretrained(name)
        for key, value in changes.items():
            setattr(config, key, value)
    torch.manual_seed(0)
    if name in SHAPES or changes:
        with device:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    else:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation=attention)
        model = model.to(device)
    return model.eval().requires_grad_(False)


def title(name: str) -> str:
    """A shape's name, or that of a folder."""
    return name if name in SHAPES else Path(name).name


def twin(model: Any) -> Any:
    """A model of its own that shares the weights, so that all subjects read the same memory."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def tokens(model: Any, batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.config.vocab_size, (batch, length), generator=generator).to(model.device)

"""Tiny random models of many families, for tests: real transformers classes, a few thousand parameters each."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

COMMON: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen2": {},
    "qwen3": {"head_dim": 12},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 4},
    "granite": {},
    "smollm3": {},
    "starcoder2": {"sliding_window": None},
    "olmo2": {},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 48},
}


def tiny_model(family: str = "llama", seed: int = 0, **options: Any) -> PreTrainedModel:
    """A random model of a family in eval mode, with weights large enough that attention matters."""
    settings = {**COMMON, **FAMILIES[family], **options}
    if family == "gpt2":
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "head_dim",
        ):
            settings.pop(key, None)
        settings.pop("num_key_value_heads")
        settings.pop("max_position_embeddings")
    config = AutoConfig.for_model(family, **settings)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.25)
    return model.eval()


class TinyTokenizer:
    """Words to tokens of the tiny models, the same word always the same token; for variants that begin from a text."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [3 + sum(word.encode()) % 58 for word in text.split()]}


def perturb(handle: Any, std: float = 0.3, seed: int = 0) -> None:
    """Move every parameter of an adapter away from its init."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in handle.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(std * noise)

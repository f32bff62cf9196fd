"""Where HF PEFT's LLaMA-Adapter is the one of the algebra, and what its tensors are called."""

from __future__ import annotations

import math
from typing import Any

from ctxpeft.hosts.discover import Layer

MODEL_TYPES = ("llama", "mistral")


def prompt_name(layer: Layer) -> str:
    """The tensor of a layer's prompts, (1, P, D)."""
    return f"base_model.model.{layer.name}.{layer.attribute}.adaption_prompt"


def gate_name(layer: Layer) -> str:
    """The tensor of a layer's gate, (1,)."""
    return f"base_model.model.{layer.name}.{layer.attribute}.adaption_gate"


def refusal(layers: list[Layer]) -> str | None:
    """Why PEFT computes something else in these layers, or nothing at all; None where it is the same."""
    for layer in layers:
        attention: Any = layer.attention
        kind = str(getattr(attention.config, "model_type", ""))
        if kind == "gpt2":
            return (
                "PEFT's LLaMA-Adapter adds what GPT-2's heads read behind their output projection, without "
                "projecting it; the algebra adds it before"
            )
        if kind not in MODEL_TYPES:
            return f"PEFT has LLaMA-Adapter for {' and '.join(MODEL_TYPES)} models only, this is '{kind}'"
        if getattr(layer.output_projection(), "bias", None) is not None:
            return "PEFT's LLaMA-Adapter adds the bias of the output projection twice, the algebra once"
        plain = layer.hidden_width == layer.query_heads * layer.query_width
        if not plain or not math.isclose(attention.scaling, layer.query_width**-0.5):
            return "PEFT's LLaMA-Adapter needs heads that share the width of the model and scores scaled by 1/sqrt(d)"
    return None

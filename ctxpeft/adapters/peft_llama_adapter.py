"""Where HF PEFT's LLaMA-Adapter is the one of the algebra, and what its tensors are called."""

from __future__ import annotations

import math
from typing import Any

from ctxpeft.hosts.discover import Layer

PROJECTED = {"llama": True, "mistral": True, "gpt2": False}
"""The model types PEFT has it for, and whether the read goes through the output projection or is added behind it."""


def prompt_name(layer: Layer) -> str:
    """The tensor of a layer's prompts, (1, P, D)."""
    return f"base_model.model.{layer.name}.{layer.attribute}.adaption_prompt"


def gate_name(layer: Layer) -> str:
    """The tensor of a layer's gate, (1,)."""
    return f"base_model.model.{layer.name}.{layer.attribute}.adaption_gate"


def refusal(layers: list[Layer]) -> str | None:
    """Why PEFT computes something else in these layers, or nothing at all; None where it is the same."""
    for layer in layers:
        kind = _model_type(layer)
        if kind not in PROJECTED:
            return f"PEFT has LLaMA-Adapter for {', '.join(PROJECTED)} models only, this is '{kind}'"
        if PROJECTED[kind] and getattr(layer.output_projection(), "bias", None) is not None:
            return "PEFT's LLaMA-Adapter adds the bias of the output projection twice, the algebra once"
        attention: Any = layer.attention
        plain = layer.hidden_width == layer.query_heads * layer.query_width
        if not plain or not math.isclose(attention.scaling, layer.query_width**-0.5):
            return "PEFT's LLaMA-Adapter needs heads that share the width of the model and scores scaled by 1/sqrt(d)"
    return None


def projected(layers: list[Layer]) -> bool:
    """Whether PEFT puts the reads of these layers, which it has LLaMA-Adapter for, through the output projection."""
    return PROJECTED[_model_type(layers[0])]


def _model_type(layer: Layer) -> str:
    return str(getattr(getattr(layer.attention, "config", None), "model_type", ""))

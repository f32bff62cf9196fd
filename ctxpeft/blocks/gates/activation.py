"""Activations of learned gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["tanh", "sigmoid", "linear", "exp"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
    "exp": torch.exp,
}
ZERO_AT_ZERO = ("tanh", "linear")
ONE_AT = {"linear": 1.0, "exp": 0.0}
POSITIVE = ("sigmoid", "exp")


def written_activation(activation: Activation, argument: str) -> str:
    """An activation of an argument as equations print it."""
    forms = {"sigmoid": f"σ({argument})", "linear": argument}
    return forms.get(activation, f"{activation}({argument})")

"""The base is frozen while something is attached, kept out of checkpoints, and given back as it was."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from ctxpeft.hosts import quantized
from ctxpeft.hosts.controller import ATTRIBUTE
from ctxpeft.hosts.probe import ATTRIBUTE as WIRING
from ctxpeft.hosts.prompts import READ_BEFORE as PROMPTS
from ctxpeft.hosts.spots import ATTRIBUTE as SPOTS

MARK = "ctxpeft"


def remember(model: nn.Module) -> None:
    """Note how the base stands: which parameters are trained, what the Trainer leaves out of checkpoints."""
    if "_ctxpeft_base" not in model.__dict__:
        model.__dict__["_ctxpeft_base"] = {
            "ignored": model.__dict__.get("_keys_to_ignore_on_save", ...),
            "trainable": [(p, p.requires_grad) for p in model.parameters()],
            "quantizer": quantized.admit(model),
        }


def freeze(model: nn.Module) -> None:
    """Freeze every remembered base parameter and make the Trainer save adapters only.

    Parameters of HF PEFT tuners that were injected before stay as they are.
    """
    injected = _injected_parameters(model)
    base = {id(p) for p, _ in model.__dict__["_ctxpeft_base"]["trainable"]} - injected
    for parameter in model.parameters():
        if id(parameter) in base:
            parameter.requires_grad_(False)
    ours = {id(p) for key, p in model.named_parameters() if _is_ours(key)} | injected
    kept_out = [
        key
        for key, value in quantized.saved_tensors(model).items()
        if id(value) not in ours and not _is_ours(key)
    ]
    model._keys_to_ignore_on_save = kept_out  # type: ignore[assignment]


def release(model: nn.Module) -> None:
    """Give the base back: trainable flags and saving as before the first attach."""
    root = model.__dict__.get("_ctxpeft_root")
    if root is not None:
        root.remove()
    for name in (ATTRIBUTE, WIRING, SPOTS, PROMPTS):
        model.__dict__.pop(name, None)
    state: dict[str, Any] = model.__dict__.pop("_ctxpeft_base", {"trainable": [], "ignored": ...})
    for parameter, trainable in state["trainable"]:
        parameter.requires_grad_(trainable)
    quantized.release(model, state.get("quantizer"))
    if state["ignored"] is ...:
        model.__dict__.pop("_keys_to_ignore_on_save", None)
    else:
        model._keys_to_ignore_on_save = state["ignored"]


def _is_ours(key: str) -> bool:
    """Whether a parameter's name says that an adapter of ours owns it."""
    return MARK in key.split(".")


def _injected_parameters(model: nn.Module) -> set[int]:
    """Parameters that HF PEFT tuner layers added; found without importing PEFT."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    found: set[int] = set()
    if tuners is None:
        return found
    for module in model.modules():
        if isinstance(module, tuners.BaseTunerLayer):
            for attribute in module.adapter_layer_names:
                part = getattr(module, attribute, None)
                if isinstance(part, nn.Module | nn.ParameterDict):
                    found |= {id(p) for p in part.parameters()}
    return found

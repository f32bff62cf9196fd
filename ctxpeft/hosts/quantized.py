"""A quantised base, told to transformers' Trainer.

The Trainer refuses a quantised model unless it is a PeftModel, carries the state of transformers' PEFT mixin (which
also sends `save_pretrained` to PEFT's own format), or has a quantizer that says its model can be trained. While an
adapter is attached something can be trained, so the quantizer says so; whether its method passes gradients at all
(`is_trainable`) stays its own answer.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

QUANTIZER = "hf_quantizer"


def admit(model: nn.Module) -> Any:
    """Make the model's quantizer say that the model can be trained; returns what it was, None on a plain base."""
    before = model.__dict__.get(QUANTIZER)
    if before is not None:
        model.__dict__[QUANTIZER] = _admitted(before)
    return before


def release(model: nn.Module, before: Any) -> None:
    """Give the quantizer back."""
    if before is not None:
        model.__dict__[QUANTIZER] = before


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What `save_pretrained` would write, under its names: quantised tensors are taken apart where they are one."""
    tensors: dict[str, Tensor] = model.state_dict(keep_vars=True)
    if not any(is_traceable_wrapper_subclass(t) for t in tensors.values()):
        return tensors
    quantizer = model.__dict__.get(QUANTIZER)
    apart = None if quantizer is None else quantizer.get_state_dict_and_metadata(model)[0]
    return {**tensors, **{key: value for key, value in (apart or {}).items() if key not in tensors}}


def _admitted(before: Any) -> Any:
    """A copy that differs in one answer. Its class has no import path, so copies and pickles are made from `before`."""
    quantizer = copy.copy(before)
    body = {"is_qat_trainable": True, "__reduce_ex__": lambda self, protocol: (_admitted, (before,))}
    quantizer.__class__ = type(type(before).__name__, (type(before),), body)
    return quantizer

"""Tensors from a file that anyone may have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ctxpeft.errors import AdapterError


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file, on CPU. Raises AdapterError on anything else, and on NaN or
    infinity."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: truncated or not a safetensors file ({error})") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"{path}: tensor '{key}' holds NaN or infinity")
    return metadata, tensors

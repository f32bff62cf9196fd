"""Write an adapter: the weights, the spec that gives them meaning, and a card for people."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ctxpeft.adapters.layout import CARD, FORMAT, NEXT, VARIANT, WEIGHTS
from ctxpeft.adapters.tensors import DIGEST, digest_of, open_tensors
from ctxpeft.data import mini_model_path
from ctxpeft.errors import AdapterError, DiskError, SpecError
from ctxpeft.files import replacing, write_text
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.spec.load import variant_from_file

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls the types of an adapter's tensors."""


def save(handle: BaseHandle, directory: str | os.PathLike[str], address: str = "path/to/this/folder") -> None:
    """Save variant.yaml, adapter.safetensors and README.md. `address` is what the card loads.

    A save that is cut off, at whatever point, leaves a folder that loads as what it held before or as what was to be
    saved: the weights are replaced in one step and carry the fingerprint of their spec, which lies beside them by then.

    Raises AdapterError if the path is a file, DiskError if it cannot be written.
    """
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise AdapterError(f"{folder}: is a file; expected a folder to save the adapter in")
    variant = handle.variant
    tensors = {key: value.contiguous() for key, value in handle.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _settle(folder)
        variant.to_yaml(folder / NEXT, defaults=True)
        try:
            with replacing(folder / WEIGHTS) as temporary:
                save_file(tensors, temporary, metadata=_metadata(handle, digest_of(tensors)))
        except BaseException:
            (folder / NEXT).unlink(missing_ok=True)
            raise
        (folder / NEXT).replace(folder / VARIANT)
        write_text(folder / CARD, _card(handle, address))
    except (OSError, SafetensorError) as error:
        raise DiskError(
            f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})"
        ) from None


def _settle(folder: Path) -> None:
    """Put the spec of an earlier save that was cut off in its place, if the weights are its own already."""
    with contextlib.suppress(AdapterError, SpecError):
        fingerprint = variant_from_file(folder / NEXT).fingerprint() if (folder / NEXT).is_file() else None
        if fingerprint and open_tensors(folder / WEIGHTS).metadata.get("fingerprint") == fingerprint:
            (folder / NEXT).replace(folder / VARIANT)


def _metadata(handle: BaseHandle, digest: str) -> dict[str, str]:
    return {
        "format": FORMAT,
        "fingerprint": handle.variant.fingerprint(),
        "base": base_name(handle),
        DIGEST: digest,
    }


def file_bytes(handle: BaseHandle) -> int:
    """The size of adapter.safetensors, without writing it: a length of 8 bytes, a header padded to 8, the tensors.

    The adapter may be on the meta device.
    """
    tensors = sorted(handle.state_dict().items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": _metadata(handle, "0" * 64)}
    end = 0
    for key, tensor in tensors:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        dtype = CODES[tensor.dtype]
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    written = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-written // 8) * 8 + end


def base_name(handle: BaseHandle) -> str:
    """The hub id of the base, the name of its folder if it is local, or its class."""
    config = getattr(handle.model, "config", None)
    name = str(getattr(config, "_name_or_path", "") or type(handle.model).__name__)
    return Path(name).name if Path(name).is_dir() else name


def _card(handle: BaseHandle, address: str) -> str:
    variant = handle.variant
    base = base_name(handle)
    source = f" ({variant.source})" if variant.source else ""
    place, more = f'"{base}"', ""
    if base == mini_model_path().name:  # ships with ctxpeft, and the hub does not know it
        place, more = "mini_model_path()", "\nfrom ctxpeft.data import mini_model_path"
    return f"""---
library_name: ctxpeft
base_model: {base}
tags: [ctxpeft, peft, {variant.name}]
---
# {variant.title or variant.name} on {base}

A context-based adapter made with ctxpeft: {variant.name}{source}.

- trainable parameters: {handle.num_parameters():,}
- once deployed: {handle.num_parameters("deployed"):,}
- fingerprint of the method: `{variant.fingerprint()}`

```python
import ctxpeft
from transformers import AutoModelForCausalLM{more}

model = AutoModelForCausalLM.from_pretrained({place})
handle = ctxpeft.load(model, "{address}")
```

The method, in full:

```yaml
{variant.to_yaml().strip()}
```
"""

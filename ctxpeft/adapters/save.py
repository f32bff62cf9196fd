"""Write an adapter: the weights, the spec that gives them meaning, and a card for people."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import save_file

from ctxpeft.adapters.layout import CARD, FORMAT, VARIANT, WEIGHTS
from ctxpeft.errors import AdapterError
from ctxpeft.files import replacing, write_text
from ctxpeft.hosts.handle import BaseHandle


def save(handle: BaseHandle, directory: str | os.PathLike[str], address: str = "path/to/this/folder") -> None:
    """Save variant.yaml, adapter.safetensors and README.md. Each file is replaced whole; the weights carry the
    fingerprint of their spec, so files of two saves are never mistaken for one. `address` is what the card loads.

    Raises AdapterError if the path is a file or cannot be written.
    """
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise AdapterError(f"{folder}: is a file; expected a folder to save the adapter in")
    variant = handle.variant
    metadata = {"format": FORMAT, "fingerprint": variant.fingerprint(), "base": base_name(handle)}
    tensors = {key: value.contiguous() for key, value in handle.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        variant.to_yaml(folder / VARIANT, defaults=True)
        with replacing(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata=metadata)
        write_text(folder / CARD, _card(handle, address))
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be written ({error.strerror or error})") from None


def base_name(handle: BaseHandle) -> str:
    """The hub id of the base, the name of its folder if it is local, or its class."""
    config = getattr(handle.model, "config", None)
    name = str(getattr(config, "_name_or_path", "") or type(handle.model).__name__)
    return Path(name).name if Path(name).is_dir() else name


def _card(handle: BaseHandle, address: str) -> str:
    variant = handle.variant
    base = base_name(handle)
    source = f" ({variant.source})" if variant.source else ""
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
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{base}")
handle = ctxpeft.load(model, "{address}")
```

The method, in full:

```yaml
{variant.to_yaml().split(chr(10), 1)[1].strip()}
```
"""

"""Write an adapter in another library's format."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ctxpeft.adapters.layout import PEFT_CONFIG, PEFT_WEIGHTS
from ctxpeft.adapters.peft_export import to_peft
from ctxpeft.errors import AdapterError, DiskError, did_you_mean
from ctxpeft.files import replacing_together
from ctxpeft.hosts.handle import Handle

Foreign = tuple[dict[str, Any], dict[str, Tensor]]
FORMATS: dict[str, Callable[[Handle], Foreign]] = {"peft": to_peft}


def export(handle: Handle, directory: str | os.PathLike[str], format: str = "peft") -> None:
    """Write the adapter so that `peft.PeftModel.from_pretrained(base, directory)` computes the same.

    A new folder appears whole; in a folder that is there, each file is replaced whole.

    Raises AdapterError, naming the reason, where the format cannot say what the adapter computes, and if the path is a
    file; DiskError if it cannot be written.
    """
    if format not in FORMATS:
        raise AdapterError(f"unknown format '{format}'{did_you_mean(format, FORMATS)}")
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise AdapterError(f"{folder}: is a file; expected a folder to export the adapter to")
    config, tensors = FORMATS[format](handle)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    text = json.dumps(config, indent=2, sort_keys=True)
    try:
        if folder.exists():
            _write(folder, text, tensors)
        else:
            _write_new(folder, text, tensors)
    except (OSError, SafetensorError) as error:
        raise DiskError(
            f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})"
        ) from None


def _write(folder: Path, config: str, tensors: dict[str, Tensor]) -> None:
    """Both files are on disk before the first takes its place. Weights are never seen beside the configuration of
    others: a folder that is cut off in between has none."""
    path = folder / PEFT_CONFIG

    def drop_another() -> None:
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != config:
            path.unlink()

    with replacing_together(folder / PEFT_WEIGHTS, path, just_before=drop_another) as (weights, last):
        save_file(tensors, weights, metadata={"format": "pt"})
        last.write_text(config, encoding="utf-8")


def _write_new(folder: Path, config: str, tensors: dict[str, Tensor]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(hidden, config, tensors)
        umask = os.umask(0)
        os.umask(umask)
        hidden.chmod(0o777 & ~umask)
        hidden.rename(folder)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise

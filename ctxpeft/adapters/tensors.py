"""Tensors from a file that anyone may have made: its header is checked before a tensor is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ctxpeft.errors import AdapterError

DIGEST = "sha256"
FLOATS = ("F64", "F32", "F16", "BF16")
LARGEST_HEADER = 8 << 20  # bytes; an adapter has some hundred bytes a tensor


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header has been read and whose tensors have not.

    shapes, dtypes: of every tensor, the type as safetensors calls it.
    """

    path: Path
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    def floats(self, name: str) -> bool:
        """Whether a tensor is of an ordinary floating-point type."""
        return self.dtypes[name] in FLOATS

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These tensors, on CPU.

        Raises AdapterError on NaN and infinity, and on values other than those that were saved, where the file carries
        their digest and all are read.
        """
        found: dict[str, Tensor] = {}
        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                for name in names:
                    found[name] = file.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
            raise AdapterError(f"{self.path}: cannot be read ({error})") from None
        for name, tensor in found.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise AdapterError(f"{self.path}: tensor '{name}' holds NaN or infinity")
        digest = self.metadata.get(DIGEST)
        if digest is not None and found.keys() == self.shapes.keys() and digest != digest_of(found):
            raise AdapterError(
                f"{self.path}: its values are not those that were saved (SHA-256 differs): damaged or changed"
            )
        return found


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def open_tensors(path: Path) -> TensorFile:
    """Read the header of a safetensors file. Raises AdapterError on anything else, and on a header of a size that no
    adapter has."""
    try:
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
        if size > LARGEST_HEADER:
            raise AdapterError(
                f"{path}: truncated or not a safetensors file (its header would be {size:,} bytes long)"
            )
        with safe_open(path, framework="pt", device="cpu") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            return TensorFile(
                path,
                dict(file.metadata() or {}),
                {key: tuple(s.get_shape()) for key, s in slices.items()},
                {key: s.get_dtype() for key, s in slices.items()},
            )
    except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
        raise AdapterError(f"{path}: truncated or not a safetensors file ({error})") from None

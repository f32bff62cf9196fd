"""Read an adapter that anyone may have made: checked before the model is touched, nothing executed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ctxpeft.adapters.layout import FORMAT, PEFT_CONFIG, PEFT_WEIGHTS, VARIANT, WEIGHTS
from ctxpeft.adapters.peft_folder import read_peft_folder
from ctxpeft.adapters.peft_import import from_peft
from ctxpeft.adapters.tensors import read_tensors
from ctxpeft.errors import AdapterError, SpecError, did_you_mean
from ctxpeft.hosts.attach import place
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.spec.load import variant_from_file
from ctxpeft.spec.variant import Variant


def load(
    model: nn.Module,
    directory_or_hub_id: str | os.PathLike[str],
    name: str = "default",
    trainable: bool = False,
) -> BaseHandle:
    """Attach a saved adapter: a folder, or the id of a Hub repository that holds one.

    A folder of HF PEFT is read too, if its method is Prefix-Tuning, Prompt Tuning, P-Tuning, LLaMA-Adapter or
    Cartridge: the handle then has an ordinary variant that computes what PEFT computes. PEFT saves what its encoders
    and projections produce, not their weights: that is what is trained on.

    Raises AdapterError for a folder that is missing, truncated, foreign, or made for other shapes; the model is then
    as it was.
    """
    folder = _folder(os.fspath(directory_or_hub_id))
    theirs = (folder / PEFT_CONFIG).is_file() and not (folder / VARIANT).is_file()
    variant, tensors = from_peft(read_peft_folder(folder), model) if theirs else read_adapter(folder)
    handle = place(model, variant, name, seed=0)
    try:
        _fill(handle, tensors, folder / (PEFT_WEIGHTS if theirs else WEIGHTS))
    except AdapterError:
        handle.detach()
        raise
    for parameter in handle.parameters():
        parameter.requires_grad_(trainable)
    return handle


def refill(handle: BaseHandle, directory_or_hub_id: str | os.PathLike[str]) -> None:
    """Put the tensors of a saved adapter into an attached one of the same spec.

    Raises AdapterError as `load` does, and for another spec.
    """
    folder = _folder(os.fspath(directory_or_hub_id))
    variant, tensors = read_adapter(folder)
    if variant.fingerprint() != handle.variant.fingerprint():
        raise AdapterError(
            f"{folder}: holds '{variant.name}', and the attached adapter '{handle.name}' is of another spec "
            f"('{handle.variant.name}'); use ctxpeft.load"
        )
    _fill(handle, tensors, folder / WEIGHTS)


def read_adapter(folder: Path) -> tuple[Variant, dict[str, Tensor]]:
    """The spec and the tensors of a saved adapter, on CPU. Raises AdapterError on anything that is not one."""
    for file in (VARIANT, WEIGHTS):
        if not (folder / file).is_file():
            raise AdapterError(f"{folder}: holds no {file}; expected a folder written by handle.save()")
    try:
        variant = variant_from_file(folder / VARIANT)
    except SpecError as error:
        raise AdapterError(str(error)) from None
    path = folder / WEIGHTS
    metadata, tensors = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise AdapterError(f"{path}: not written by ctxpeft (its format is {metadata.get('format')!r})")
    if metadata.get("fingerprint") != variant.fingerprint():
        raise AdapterError(
            f"{path}: its weights belong to another spec than {VARIANT} beside it; save the adapter again"
        )
    return variant, tensors


def _folder(what: str) -> Path:
    path = Path(what)
    if path.is_dir():
        return path
    if path.exists():
        raise AdapterError(f"{path}: is a file; expected a folder with {VARIANT} and {WEIGHTS}")
    if what.count("/") != 1 or what.startswith((".", "/")):
        raise AdapterError(f"{what}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(what, allow_patterns=[VARIANT, WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AdapterError(
            f"{what}: neither a local folder nor a repository the Hub would give ({reason})"
        ) from None


def _fill(handle: BaseHandle, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into an attached adapter after checking every name and shape."""
    wanted: dict[str, Tensor] = handle.state_dict()
    for key in wanted:
        if key not in tensors:
            raise AdapterError(
                f"{path}: the model needs tensor '{key}', which is missing: made for another model"
            )
    for key, tensor in tensors.items():
        if key not in wanted:
            raise AdapterError(f"{path}: unexpected tensor '{key}'{did_you_mean(key, list(wanted)[:50])}")
        if tensor.shape != wanted[key].shape:
            found, needed = tuple(tensor.shape), tuple(wanted[key].shape)
            raise AdapterError(f"{path}: tensor '{key}' has shape {found} and this model needs {needed}")
        if tensor.is_floating_point() != wanted[key].is_floating_point():
            raise AdapterError(
                f"{path}: tensor '{key}' has dtype {tensor.dtype}, expected a floating-point tensor"
            )
    with torch.no_grad():
        for key, tensor in tensors.items():
            wanted[key].copy_(tensor)

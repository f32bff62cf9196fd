"""Read an adapter that anyone may have made: checked before the model is touched, nothing executed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ctxpeft.adapters.layout import CHECKPOINT, FORMAT, NEXT, PEFT_CONFIG, PEFT_WEIGHTS, VARIANT, WEIGHTS
from ctxpeft.adapters.peft_folder import read_peft_folder
from ctxpeft.adapters.peft_import import from_peft
from ctxpeft.adapters.tensors import TensorFile, open_tensors
from ctxpeft.errors import AdapterError, SpecError, did_you_mean
from ctxpeft.hosts.attach import place
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.online import hub_settings, without_network
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
    if (folder / PEFT_CONFIG).is_file() and not (folder / VARIANT).is_file():
        variant, tensors = from_peft(read_peft_folder(folder), model)
        handle = place(model, variant, name, seed=0)
    else:
        variant, file = read_adapter(folder)
        handle = place(model, variant, name, seed=0, check=lambda wanted: _check(wanted, file))
        tensors = _read(handle, file)
    _fill(handle, tensors)
    for parameter in handle.parameters():
        parameter.requires_grad_(trainable)
    return handle


def refill(handle: BaseHandle, directory_or_hub_id: str | os.PathLike[str]) -> None:
    """Put the tensors of a saved adapter into an attached one of the same spec.

    Raises AdapterError as `load` does, and for another spec.
    """
    folder = _folder(os.fspath(directory_or_hub_id))
    variant, file = read_adapter(folder)
    if variant.fingerprint() != handle.variant.fingerprint():
        raise AdapterError(
            f"{folder}: holds '{variant.name}', and the attached adapter '{handle.name}' is of another spec "
            f"('{handle.variant.name}'); use ctxpeft.load"
        )
    _check(handle.state_dict(), file)
    _fill(handle, file.read(file.shapes))


def read_adapter(folder: Path) -> tuple[Variant, TensorFile]:
    """The spec of a saved adapter and the header of its tensors. Raises AdapterError on anything that is not one."""
    path = folder / WEIGHTS
    specs = [folder / name for name in (VARIANT, NEXT) if (folder / name).is_file()]
    for name, there in ((VARIANT, bool(specs)), (WEIGHTS, path.is_file())):
        if not there and (folder / CHECKPOINT).is_file():
            raise AdapterError(
                f"{folder}: is a checkpoint of the Trainer, which holds an adapter's weights without its spec: attach "
                "the same variant, then model.load_state_dict(load_file('.../model.safetensors'), strict=False), or go "
                "on from it with resume_from_checkpoint"
            )
        if not there:
            raise AdapterError(f"{folder}: holds no {name}; expected a folder written by handle.save()")
    variants = [_spec(spec) for spec in specs]
    file = open_tensors(path)
    if file.metadata.get("format") != FORMAT:
        raise AdapterError(f"{path}: not written by ctxpeft (its format is {file.metadata.get('format')!r})")
    for variant in variants:
        if file.metadata.get("fingerprint") == variant.fingerprint():
            return variant, file
    raise AdapterError(
        f"{path}: its weights belong to another spec than {VARIANT} beside it; save the adapter again"
    )


def _spec(path: Path) -> Variant:
    try:
        return variant_from_file(path)
    except SpecError as error:
        raise AdapterError(str(error)) from None


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

    settings = hub_settings(what)
    try:
        files = [VARIANT, WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS]
        return Path(snapshot_download(what, allow_patterns=files, local_files_only=bool(settings)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = without_network(error, settings) or reason
        raise AdapterError(
            f"{what}: neither a local folder nor a repository the Hub would give ({reason})"
        ) from None


def _check(wanted: dict[str, Tensor], file: TensorFile) -> None:
    """Raises AdapterError unless the file holds the wanted tensors, by name, shape and kind, and no others."""
    for key in wanted:
        if key not in file.shapes:
            raise AdapterError(
                f"{file.path}: the model needs tensor '{key}', which is missing: made for another model"
            )
    for key, shape in file.shapes.items():
        if key not in wanted:
            raise AdapterError(
                f"{file.path}: unexpected tensor '{key}'{did_you_mean(key, list(wanted)[:50])}"
            )
        needed = tuple(wanted[key].shape)
        if shape != needed:
            raise AdapterError(f"{file.path}: tensor '{key}' has shape {shape} and this model needs {needed}")
        if file.floats(key) != wanted[key].is_floating_point():
            kind = "a floating-point" if wanted[key].is_floating_point() else "an integer"
            raise AdapterError(
                f"{file.path}: tensor '{key}' has dtype {file.dtypes[key]}, expected {kind} tensor"
            )


def _read(handle: BaseHandle, file: TensorFile) -> dict[str, Tensor]:
    try:
        return file.read(file.shapes)
    except AdapterError:
        handle.detach()
        raise


def _fill(handle: BaseHandle, tensors: dict[str, Tensor]) -> None:
    wanted = handle.state_dict()
    with torch.no_grad():
        for key, tensor in tensors.items():
            wanted[key].copy_(tensor)

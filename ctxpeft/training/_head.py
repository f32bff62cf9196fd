"""The classification head of a base: begun anew by every run, trained with every method, kept beside the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.adapters.tensors import open_tensors
from ctxpeft.errors import AdapterError
from ctxpeft.files import replacing

HEAD = "head.safetensors"
STD = 0.02  # where the model's configuration names no initializer_range


class Head:
    """The parameters `names` of a model, trained from a seed; `restore` puts every value and flag back.

    Made before anything is attached, so that the parameters are found whatever wraps them; `begin` after.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        known = dict(model.named_parameters())
        self.model = model
        self.parameters: dict[str, nn.Parameter] = {name: known[name] for name in names}
        self._before = {name: (p.detach().clone(), p.requires_grad) for name, p in self.parameters.items()}

    def begin(self, seed: int) -> None:
        """Fresh values, trained and saved from here on: normal weights, zero biases, as transformers begins a head."""
        std = getattr(self.model.config, "initializer_range", None) or STD
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if parameter.ndim > 1:
                    fresh = torch.empty(parameter.shape).normal_(0.0, float(std), generator=generator)
                    parameter.copy_(fresh)
                else:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                parameter.requires_grad_(True)
        mine = {id(p) for p in self.parameters.values()}
        here = {name for name, p in self.model.named_parameters() if id(p) in mine}
        ignored: Any = getattr(self.model, "_keys_to_ignore_on_save", None) or []
        if here & set(ignored):
            self.model._keys_to_ignore_on_save = [  # type: ignore[assignment]
                key for key in ignored if key not in here
            ]

    def num_parameters(self) -> int:
        """How many there are."""
        return sum(p.numel() for p in self.parameters.values())

    def save(self, folder: Path) -> None:
        """`head.safetensors`, under the names the model has without adapters."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {
            name: p.detach().float().contiguous().cpu() for name, p in self.parameters.items()
        }
        with replacing(folder / HEAD) as temporary:
            save_file(tensors, temporary)

    def restore(self) -> None:
        """The values and flags from before."""
        for name, parameter in self.parameters.items():
            value, flag = self._before[name]
            parameter.data.copy_(value)
            parameter.requires_grad_(flag)
            parameter.grad = None


def load_head(model: nn.Module, folder: Path) -> bool:
    """Put a saved head into the model; False where the folder holds none.

    Raises:
        AdapterError: it is of another model or another number of classes.
    """
    path = folder / HEAD
    if not path.is_file():
        return False
    known, file = dict(model.named_parameters()), open_tensors(path)
    for name, found in file.shapes.items():
        shape = tuple(known[name].shape) if name in known else "nothing"
        if shape != found or not file.floats(name):
            raise AdapterError(f"{path}: {name} is {found} {file.dtypes[name]}, the model has {shape} there")
    for name, value in file.read(file.shapes).items():
        known[name].data.copy_(value)
    return True

"""A folder of HF PEFT, read without PEFT: its configuration checked, its tensors safe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ctxpeft.adapters.layout import PEFT_CONFIG, PEFT_PICKLE, PEFT_WEIGHTS
from ctxpeft.adapters.tensors import TensorFile, open_tensors
from ctxpeft.errors import AdapterError
from ctxpeft.spec.document import one_line

LARGEST_COUNT = 65536
LARGEST_CONFIG = 1 << 20


@dataclass(frozen=True)
class PeftFolder:
    """The configuration, and the tensors, whose names and shapes are checked before one is read."""

    path: Path
    config: dict[str, Any]
    file: TensorFile

    @property
    def kind(self) -> str:
        """`PREFIX_TUNING`, `PROMPT_TUNING`, ..."""
        return one_line(str(self.config.get("peft_type")))

    def number(self, key: str, least: int = 1) -> int:
        """A whole number of the configuration. Raises AdapterError if it is none or out of range."""
        value = self.config.get(key)
        if type(value) is not int or not least <= value <= LARGEST_COUNT:
            raise AdapterError(
                f"{self.path / PEFT_CONFIG}: '{key}' must be a whole number from {least} to {LARGEST_COUNT:,}, found "
                f"{one_line(repr(value))[:60]}"
            )
        return value

    def agree(self, key: str, of_model: int) -> None:
        """Raises AdapterError where the configuration tells another number than the model's."""
        told = self.config.get(key)
        if told is not None and told != of_model:
            raise AdapterError(
                f"{self.path / PEFT_CONFIG}: made for another model{self.base()}: '{key}' is "
                f"{one_line(repr(told))[:60]} and this model needs {of_model}"
            )

    def base(self) -> str:
        """` ('name of the base')`, if the folder names one."""
        name = self.config.get("base_model_name_or_path")
        return f" ('{one_line(str(name))[:120]}')" if name else ""

    def only(self, *names: str) -> None:
        """Raises AdapterError unless there are the tensors of these names and no others."""
        path = self.path / PEFT_WEIGHTS
        for name in names:
            if name not in self.file.shapes:
                raise AdapterError(f"{path}: holds no tensor '{name}', which {self.kind} on this model needs")
        for name in self.file.shapes:
            if name not in names:
                raise AdapterError(
                    f"{path}: unexpected tensor '{one_line(name)}' beside those of {self.kind}"
                )

    def shaped(self, name: str, *shape: int) -> Tensor:
        """A floating-point tensor of this shape. Raises AdapterError otherwise, and then has not read it."""
        path, found = self.path / PEFT_WEIGHTS, self.file.shapes[name]
        if not self.file.floats(name):
            raise AdapterError(
                f"{path}: tensor '{name}' has dtype {self.file.dtypes[name]}, expected a floating-point tensor"
            )
        if found != shape:
            raise AdapterError(
                f"{path}: tensor '{name}' has shape {found} and this model needs {shape}: made for "
                f"another model{self.base()}"
            )
        return self.file.read([name])[name]


def read_peft_folder(folder: Path) -> PeftFolder:
    """The folder's configuration and the header of its tensors.

    Raises AdapterError on anything that is not one, and on pickles, which are never opened.
    """
    path = folder / PEFT_CONFIG
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise AdapterError(f"{path}: too large; expected at most {LARGEST_CONFIG:,} bytes")
        config = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: not a JSON file ({type(error).__name__})") from None
    if not isinstance(config, dict):
        raise AdapterError(f"{path}: expected a JSON object")
    if not (folder / PEFT_WEIGHTS).is_file():
        if (folder / PEFT_PICKLE).is_file():
            raise AdapterError(
                f"{folder}: its weights are {PEFT_PICKLE}, a pickle, which ctxpeft does not open; save it again "
                "from PEFT with safe_serialization=True"
            )
        raise AdapterError(f"{folder}: holds no {PEFT_WEIGHTS}")
    return PeftFolder(folder, config, open_tensors(folder / PEFT_WEIGHTS))

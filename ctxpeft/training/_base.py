"""The base model of a run: loaded once, lent to one run after another."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ctxpeft.errors import HostError, did_you_mean

MINI = "ctxpeft-mini"
DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Base:
    """A causal language model with its tokenizer; `name` is what the user called it."""

    model: Any
    tokenizer: Any
    name: str

    @property
    def positions(self) -> int | None:
        """The most tokens the model can see, if its configuration says so."""
        config = self.model.config.get_text_config()
        found = getattr(config, "max_position_embeddings", None)
        return int(found) if isinstance(found, int) and found > 0 else None

    @property
    def gqa(self) -> int | None:
        """Query heads per key and value head, if the configuration says so."""
        config = self.model.config.get_text_config()
        queries, keys = (getattr(config, f"num_{what}_heads", None) for what in ("attention", "key_value"))
        return queries // keys if isinstance(queries, int) and isinstance(keys, int) and keys > 0 else None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        found: torch.device = next(iter(self.model.parameters())).device
        return found

    @property
    def dtype(self) -> str:
        """The type of the parameters, such as `float32`."""
        return str(next(iter(self.model.parameters())).dtype).removeprefix("torch.")

    def digest(self) -> str:
        """SHA-256 over names, shapes, types and sixteen values of every parameter: quick, and paths do not enter."""
        digest = hashlib.sha256()
        for name, parameter in self.model.named_parameters():
            flat = parameter.detach().reshape(-1)
            picked = flat[torch.linspace(0, flat.numel() - 1, 16).long()].float().cpu().numpy()
            digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode() + picked.tobytes())
        return digest.hexdigest()


def load_base(
    model: str | os.PathLike[str] = MINI, dtype: DType = "float32", device: str | None = None
) -> Base:
    """Load `ctxpeft-mini`, a local directory or a hub id, for causal language modelling, in evaluation mode.

    Args:
        model: the name or directory.
        dtype: the type of the base's parameters; adapters are float32 whatever it is.
        device: `cpu`, `cuda` and so on; the GPU if there is one, when left out.

    Raises:
        HostError: there is no such model, it is no causal language model, or it has no tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    name = os.fspath(model)
    source = _source(name)
    try:
        torch_dtype = getattr(torch, dtype)
    except AttributeError:
        raise HostError(f"unknown dtype '{dtype}': expected float32, bfloat16 or float16") from None
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded: nn.Module = AutoModelForCausalLM.from_pretrained(source, dtype=torch_dtype)
    except Exception as error:  # transformers raises many types here, each of them "this cannot be loaded"
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise HostError(f"model '{name}' cannot be loaded as a causal language model: {reason}") from None
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Base(loaded.to(target).eval(), tokenizer, name)


def _source(name: str) -> str:
    if name == MINI:
        import ctxpeft.data

        return str(ctxpeft.data.mini_model_path())
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise HostError(f"{name} is a folder without config.json: expected a transformers model")
        return name
    if path.is_file() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise HostError(f"no model folder {name}{did_you_mean(path.name, siblings) if siblings else ''}")
    if "/" not in name and did_you_mean(name, [MINI]).startswith("; did"):
        raise HostError(f"unknown model '{name}'{did_you_mean(name, [MINI])}")
    return name

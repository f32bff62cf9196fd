"""The base model of a run: loaded once, lent to one run after another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from ctxpeft.errors import HostError, did_you_mean
from ctxpeft.hosts.kept import Kept
from ctxpeft.online import hub_settings, without_network
from ctxpeft.tasks import pad_id

MINI = "ctxpeft-mini"
HEAD_MODULES = ("score", "classifier", "classification_head", "pre_classifier")
DType = Literal["float32", "bfloat16", "float16"]
Pooling = Literal["model", "mean"]


@dataclass(frozen=True)
class Base:
    """A model with its tokenizer; `name` is what the user called it.

    head: names of the parameters of a classification head, trained with every method; empty for a causal language
    model, which tells a class by writing it. kept: what its lower layers gave, for adapters above them.
    """

    model: Any
    tokenizer: Any
    name: str
    head: tuple[str, ...] = ()
    kept: Kept | None = field(default=None, compare=False)

    @property
    def positions(self) -> int | None:
        """The most tokens the model can see, if its configuration says so."""
        config = self.model.config.get_text_config()
        found = getattr(config, "max_position_embeddings", None)
        return int(found) if isinstance(found, int) and found > 0 else None

    @property
    def gqa(self) -> int | None:
        """Query heads per key and value head, if the configuration says so."""
        return gqa_of(self.model.config)

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
        """SHA-256 over names, shapes, types and sixteen values of every parameter: quick, and paths do not enter.

        The head is left out: every run begins its own.
        """
        digest = hashlib.sha256()
        for name, parameter in self.model.named_parameters():
            if name in self.head:
                continue
            flat = parameter.detach().reshape(-1)
            picked = flat[torch.linspace(0, flat.numel() - 1, 16).long()].float().cpu().numpy()
            digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode() + picked.tobytes())
        return digest.hexdigest()


def gqa_of(config: Any) -> int | None:
    """Query heads per key and value head of a model's configuration, if it says so."""
    text = config.get_text_config()
    queries, keys = (getattr(text, f"num_{what}_heads", None) for what in ("attention", "key_value"))
    return queries // keys if isinstance(queries, int) and isinstance(keys, int) and keys > 0 else None


def load_base(
    model: str | os.PathLike[str] = MINI,
    dtype: DType = "float32",
    device: str | None = None,
    classes: int | None = None,
    pooling: Pooling = "model",
) -> Base:
    """Load `ctxpeft-mini`, a local directory or a hub id, in evaluation mode.

    Args:
        model: the name or directory.
        dtype: the type of the base's parameters; adapters are float32 whatever it is.
        device: `cpu`, `cuda` and so on; the GPU if there is one, when left out.
        classes: load it with a head for so many classes, which an encoder needs; else as a causal language model.
        pooling: what the head reads: what the model's own reads, or the `mean` of the last hidden states.

    Raises:
        HostError: there is no such model, it cannot be loaded so, or it has no tokenizer.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    name = os.fspath(model)
    source = source_of(name)
    if dtype not in get_args(DType):
        raise HostError(f"unknown dtype '{dtype}'{did_you_mean(str(dtype), get_args(DType))}")
    torch_dtype, target = getattr(torch, dtype), _device(device)
    logging.disable_progress_bar()
    settings = hub_settings(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **settings)
        loaded: Any
        loaded, head = _loaded(source, torch_dtype, classes, pooling, settings)
    except Exception as error:  # transformers raises many types here, each of them "this cannot be loaded"
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = without_network(error, settings) or (lines[0].rstrip(".") if lines else type(error).__name__)
        kind = "a classifier" if classes else "a causal language model"
        raise HostError(f"model '{name}' cannot be loaded as {kind}: {reason}") from None
    if not classes and reads_both_ways(loaded):
        raise HostError(f"model '{name}' is an encoder and writes no labels: train it with head=classifier")
    if classes and loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = pad_id(tokenizer)
    return Base(loaded.to(target).eval(), tokenizer, name, head)


def _device(name: str | None) -> torch.device:
    """A device that tensors can be put on. Raises HostError, with torch's reason, on any other."""
    found = str(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(found)
        torch.zeros(1, device=device).item()
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # what torch says depends on its build
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise HostError(f"the device '{found}' cannot be used here ({reason})") from None
    return device


def _loaded(
    source: str, dtype: torch.dtype, classes: int | None, pooling: Pooling, settings: dict[str, bool]
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model, and the names of its head's parameters."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    if not classes:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **settings)
        return model, ()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # that a head is new is no news
    try:
        if pooling == "mean":
            from ctxpeft.training._pooled import MeanPooledClassifier

            return MeanPooledClassifier.load(source, classes, dtype, **settings), (
                "classifier.weight",
                "classifier.bias",
            )
        model, found = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=dtype, num_labels=classes, output_loading_info=True, **settings
        )
        return model, _head(model, found["missing_keys"])
    finally:
        logging.set_verbosity(level)


def reads_both_ways(model: Any) -> bool:
    """Whether a model that was loaded for generation is an encoder."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    config = model.config
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)


def _head(model: nn.Module, missing: Iterable[str]) -> tuple[str, ...]:
    """The parameters of the classification head: those the checkpoint lacks, else those of its usual names."""
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if name in set(missing)]
    return tuple(found or [name for name in names if set(name.split(".")) & set(HEAD_MODULES)])


def source_of(name: str) -> str:
    """The folder or hub id that transformers is to load. Raises HostError where a local name is no model folder."""
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

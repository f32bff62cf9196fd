"""The model under test: one architecture of one of transformers' mappings, tiny and random, and what goes into it."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from ctxpeft.testing.hosts.configurations import tiny_config

Mapping = Literal["causal", "seq2seq", "masked"]
MAPPINGS: dict[str, str] = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING",
}
LARGEST = 30_000_000
FIRST_ID, IDS = 3, 57
PADDING = 0


def model_types(mapping: str) -> list[str]:
    """The model types of a mapping, in transformers' order."""
    return list(getattr(modeling_auto, f"{MAPPINGS[mapping]}_NAMES"))


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    """Random ids, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_ID, FIRST_ID + IDS, (batch, length), generator=generator)


@dataclass
class Subject:
    """A host and the calls the checks make of it. ids (B, T) are those of the stack whose output is looked at.

    known: what checks found of the host by itself.
    """

    mapping: str
    model_type: str
    ids: Tensor = field(default_factory=lambda: tokens(2, 9))
    encoded: Tensor = field(default_factory=lambda: tokens(2, 7, seed=2))
    known: dict[str, bool | None] = field(default_factory=dict)
    kind: Any = field(init=False)
    config: Any = field(init=False)

    def __post_init__(self) -> None:
        self.kind, self.config = architecture(self.mapping, self.model_type)
        if self.mapping == "causal" and hasattr(self.config, "is_decoder"):
            self.config.is_decoder = True

    @cached_property
    def _pristine(self) -> nn.Module:
        """The model as every check finds it. Raises ValueError where the configuration is not tiny."""
        kind, config = self.kind, self.config
        with torch.device("meta"):
            size = sum(p.numel() for p in kind._from_config(copy.deepcopy(config)).parameters())
        if size > LARGEST:
            raise ValueError(f"the tiny configuration has {size:,} parameters")
        torch.manual_seed(0)
        model: nn.Module = kind._from_config(copy.deepcopy(config)).eval()
        state = copy.deepcopy(model.state_dict())
        for parameter in model.parameters():
            if parameter.ndim in (2, 3):
                nn.init.normal_(parameter, std=0.25)
        if not self._is_finite(model):
            model.load_state_dict(state)
        return model

    def _is_finite(self, model: nn.Module) -> bool:
        """Whether the logits are; a model that reads more than text says so when it is attached to."""
        try:
            with torch.no_grad():
                return bool(torch.isfinite(self.logits(model)).all())
        except Exception:  # a host may ask for anything; the verdicts tell what attach says of it
            return True

    def model(self) -> Any:
        """A fresh copy."""
        return copy.deepcopy(self._pristine)

    @cached_property
    def takes(self) -> set[str]:
        """The names of the arguments of the forward pass."""
        return set(inspect.signature(self.kind.forward).parameters)

    @property
    def two_sided(self) -> bool:
        """Whether it reads with an encoder and writes with a decoder."""
        return bool(self.config.is_encoder_decoder) and "decoder_input_ids" in self.takes

    def logits(self, model: Any, ids: Tensor | None = None, **options: Any) -> Tensor:
        """Logits (B, T, V) over `ids`, with the same random state at every call."""
        ids = self.ids if ids is None else ids
        given = (
            {"input_ids": self.encoded, "decoder_input_ids": ids} if self.two_sided else {"input_ids": ids}
        )
        torch.manual_seed(0)
        out = model(**given, **options)
        found: Tensor = out.logits if hasattr(out, "logits") else out[0]
        return found


def perturb(handle: Any, std: float = 0.3) -> None:
    """Move every parameter of an adapter away from its init."""
    generator = torch.Generator().manual_seed(0)
    for parameter in handle.parameters():
        parameter.data.add_(std * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def architecture(mapping: str, model_type: str) -> tuple[Any, Any]:
    """The class a mapping gives a model type, and its tiny configuration: the type's own, or the part of it that the
    class is made of (its text model, or a decoder)."""
    config = tiny_config(model_type)
    found = getattr(modeling_auto, MAPPINGS[mapping])[type(config)]
    kind = found[0] if isinstance(found, list | tuple) else found
    parts = [config, *(getattr(config, name) for name in config.sub_configs or {})]
    return kind, next((part for part in parts if isinstance(part, kind.config_class)), config)

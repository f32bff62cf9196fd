"""The rotary embedding of a layer: slot keys turned back by a number of positions, by the host's own modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError


@dataclass(frozen=True)
class Rotary:
    """The module that yields cos and sin, the function that applies them, and the layer's type where the frequencies
    depend on it. `applies` is false in layers that leave their keys unrotated (SmolLM3)."""

    module: Any
    apply: Callable[..., tuple[Tensor, Tensor]]
    layer_type: str | None
    applies: bool

    @classmethod
    def of(cls, model: nn.Module, name: str, attention: Any) -> Rotary | None:
        """The rotary embedding of the layer called `name`, or None where the model keeps none."""
        apply = getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)
        parts = name.split(".")
        owners = [attention] + [
            model.get_submodule(".".join(parts[:n])) for n in range(len(parts), -1, -1)
        ]  # from the layer outwards
        module = next((o.rotary_emb for o in owners if hasattr(o, "rotary_emb")), None)
        if module is None or apply is None:
            return None
        by_type = isinstance(getattr(module, "rope_type", None), dict)
        layer_type = str(getattr(attention, "layer_type", "")) if by_type else None
        return cls(module, apply, layer_type, bool(getattr(attention, "use_rope", True)))

    def kind(self) -> str:
        """`default`, `linear`, `yarn`, `llama3`, `dynamic`, `longrope`, ..."""
        found = self.module.rope_type
        return str(found[self.layer_type] if self.layer_type is not None else found)

    def fixed(self) -> bool:
        """Whether the frequencies are the same for inputs of every length."""
        return "dynamic" not in self.kind() and self.kind() != "longrope"

    def turn(self, key: Tensor, by: int) -> Tensor:
        """Keys (G, P, d) turned by `by` positions, forward if positive; what the rotation scales stays as it is."""
        if not self.applies:
            return key
        cos, sin = self._angles(key, by)
        unit = self._angles(key, 0)[0]
        turned = self.apply(key[None], key[None], cos / unit, sin / unit)[1]
        return turned[0]

    def _angles(self, like: Tensor, position: int) -> tuple[Tensor, Tensor]:
        positions = torch.full((1, 1), position, device=like.device)
        extra = {} if self.layer_type is None else {"layer_type": self.layer_type}
        cos, sin = self.module(like.new_empty(1), positions, **extra)
        return cos, sin


def check_turnable(rotary: Rotary | None, model_type: str) -> None:
    """Raises HostError, in one sentence, where position `before` has no meaning."""
    if rotary is None:
        raise HostError(
            f"position 'before' turns slot keys back by the rotary embedding of the host, and {model_type} has none "
            "that ctxpeft knows; use position 'offset'"
        )
    if not rotary.fixed():
        raise HostError(
            f"position 'before' turns slot keys back by the rotary embedding of the host, and that of this model "
            f"('{rotary.kind()}') changes with the length of the input; use position 'offset'"
        )

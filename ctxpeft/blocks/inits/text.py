"""Slots that begin as a prompt: the keys and values the frozen model computes for a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.states import TextStates
from ctxpeft.errors import HostError
from ctxpeft.spec.blocks import InitSpec, Place

if TYPE_CHECKING:
    from ctxpeft.blocks.context_module import ContextModule


class Text(InitSpec):
    """K and V of the first `count` tokens of `text`, in every layer: attaching the slots is reading the text before
    every input, exactly where positions are relative (RoPE). Frozen slots come first, so they hold its first tokens.

    Raises HostError when attached if the text has fewer tokens than there are slots.
    """

    cites: ClassVar[str] = "Cartridges, arXiv:2506.06266; Prefix-Tuning, arXiv:2101.00190"
    equation: ClassVar[str] = "K, V of a prompt"
    compiles: ClassVar[bool] = True
    kind: Literal["text"] = "text"
    text: Annotated[str, Field(min_length=1)]

    def fill_(self, tensor: Tensor) -> None:
        """Zero until the host's states are there."""
        nn.init.zeros_(tensor)

    def texts(self) -> tuple[tuple[str, Place], ...]:
        return ((self.text, "before"),)

    def compile(self, module: ContextModule, states: list[TextStates]) -> None:
        (prompt,) = states
        slots: Any = module.memory.slots
        trained = getattr(slots, "trained", slots)
        first = 0 if trained is slots else slots.key.shape[1]
        wanted, found = first + trained.key.shape[1], prompt.rotated_key.shape[1]
        if found < wanted:
            raise HostError(
                f"init 'text': the text has {found} tokens and there are {wanted} slots; give a longer text or a "
                "smaller count"
            )
        heads = torch.tensor(sorted(set(module.kv_head_of_head)), device=prompt.value.device)
        with torch.no_grad():
            for name, source in (("key", prompt.rotated_key), ("value", prompt.value)):
                whole = source.index_select(0, heads)
                getattr(trained, name).copy_(whole[:, first:wanted])
                if first:
                    getattr(slots, name).copy_(whole[:, :first])

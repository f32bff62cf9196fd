"""What is true of one forward pass of the whole model: which tokens are generated, and where each token stands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import ATTRIBUTE, controller_of

IGNORED = -100
PromptKV = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Pass:
    """The arguments of the call, read only when a module asks. Shapes: B rows, T tokens of this call.

    given: the keyword arguments of the model's forward. length: tokens the cache holds already, a tensor where a static
    cache counts on the device. segments: the mask that `ctxpeft.segments` set, if any. prompts: K (Hkv, P, d) and
    V (Hkv, P, dv) by owner of virtual tokens and layer; kept here so that gradient checkpointing recomputes with the
    same tensors.
    """

    given: Mapping[str, Any]
    length: int | Tensor
    segments: Tensor | None
    prompts: dict[nn.Module, PromptKV] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any], segments: Tensor | None) -> Pass:
        """Facts of a call with these arguments."""
        cache = given.get("past_key_values")
        count = getattr(cache, "get_seq_length", None)
        length = count() if callable(count) else 0
        return cls(given, length.clone() if isinstance(length, Tensor) else length, segments)

    @property
    def cached(self) -> int:
        """Tokens the cache held when the pass began; waits for the device where a static cache counts there."""
        return int(self.length)

    def __deepcopy__(self, memo: Any) -> Pass:
        """A copied model begins its own passes; the tensors of this one are not copied."""
        return self

    def shape(self) -> tuple[int, int]:
        """B and T. Raises HostError if the call was given neither token ids nor embeddings."""
        for name in ("input_ids", "inputs_embeds"):
            found = self.given.get(name)
            if isinstance(found, Tensor):
                return int(found.shape[0]), int(found.shape[1])
        raise HostError(
            "this forward pass has neither input_ids nor inputs_embeds, so its tokens cannot be told apart"
        )

    def device(self) -> torch.device:
        """Where the tokens are."""
        found = self.given.get("input_ids")
        tensor = found if isinstance(found, Tensor) else self.given["inputs_embeds"]
        assert isinstance(tensor, Tensor)
        return tensor.device

    def generated(self) -> Tensor:
        """(B, T) booleans: the token is generated, not prompt. By `ctxpeft.segments`, else by the labels, else by
        the cache: one token on a cache that holds others is generated, what a cache begins with is prompt.

        Raises HostError where none of them tells: several tokens on a cache (a prompt in chunks, drafted tokens), a
        call that keeps no cache; or where the mask of `ctxpeft.segments` has another shape than the tokens.
        """
        batch, tokens = self.shape()
        if self.segments is not None:
            mask = self.segments.to(self.device(), torch.bool)[:, self.cached : self.cached + tokens]
            if mask.shape[1] != tokens or batch % mask.shape[0]:
                raise HostError(
                    f"segments was given a mask of shape {tuple(self.segments.shape)} and this pass holds {batch} rows "
                    f"of {self.cached + tokens} tokens"
                )
            return mask.repeat_interleave(batch // mask.shape[0], 0)
        labels = self.given.get("labels")
        if isinstance(labels, Tensor) and labels.shape == (batch, tokens):
            return labels != IGNORED
        if self.cached and tokens > 1:
            raise HostError(
                f"this pass puts {tokens} tokens on a cache of {self.cached}: whether they are prompt (in chunks) or "
                "generated (drafted) cannot be told, and this variant's scope.tokens asks; say it with ctxpeft.segments"
            )
        if not self.cached and self.given.get("use_cache") is False:
            raise HostError(
                "this pass has no labels and keeps no cache: which of its tokens are generated cannot be told, and "
                "this variant's scope.tokens asks; say it with ctxpeft.segments"
            )
        return torch.full((batch, tokens), self.cached > 0, device=self.device())

    def positions(self) -> Tensor:
        """(B, T) or (1, T), from 0: the call's position_ids, else counted over its attention mask, else in order."""
        told = self.given.get("position_ids")
        if isinstance(told, Tensor) and told.ndim == 2:
            return told
        _, tokens = self.shape()
        mask = self.given.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            return (mask.long().cumsum(1) - 1).clamp_min(0)[:, -tokens:]
        return torch.arange(self.cached, self.cached + tokens, device=self.device())[None]


@contextlib.contextmanager
def segments(model: nn.Module, generated: Tensor) -> Iterator[None]:
    """Inside the block `generated` (B, T_all), booleans, says which tokens are generated and which are prompt.

    For modules with `scope.tokens`, where neither labels nor the cache tell: a forward pass over a whole text, a prompt
    that is processed in chunks, drafted tokens. Rows are repeated for beams. Raises HostError if nothing is attached.
    """
    controller = controller_of(model)
    before, controller.segments = controller.segments, generated
    try:
        yield
    finally:
        controller.segments = before


def if_attached(model: nn.Module, generated: Tensor) -> contextlib.AbstractContextManager[None]:
    """`segments` where an adapter of ours is attached; a bare model asks nothing."""
    return segments(model, generated) if ATTRIBUTE in model.__dict__ else contextlib.nullcontext()

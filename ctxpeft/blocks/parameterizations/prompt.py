"""Slot keys and values are those of the frozen model for virtual tokens (Prompt Tuning, P-Tuning)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, compute_dtype
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import InitSpec, Looked, ParameterizationSpec, SiteShape, SlotShape


class Prompt(ParameterizationSpec):
    """E (P, D), embeddings of P virtual tokens, one set for the whole model: the frozen model reads them once a pass,
    and every layer in scope takes the keys and values it computed for them as its slots.

    In a causal model this is E before the embeddings of the input, with every gradient. Beyond a sliding window, and
    where attention picks few keys of many, it differs: the slots stay visible to every query. Attaching measures
    whether two tokens, as virtual tokens, do what they do before the input, and refuses a host on which they do not.

    encoder: E is the output of an encoder of free embeddings (P-Tuning): mlp, three linear layers with relu; lstm, a
    bidirectional LSTM of `lstm_layers` layers and two linear layers with relu. hidden: its width, that of the model
    where left out. `init` fills the free embeddings.
    """

    cites: ClassVar[str] = "Prompt Tuning, arXiv:2104.08691; P-Tuning, arXiv:2103.10385"
    equation: ClassVar[str] = "K, V = those of the frozen model over E"
    looks_at: ClassVar[tuple[Looked, ...]] = ()
    per_kv_head_only: ClassVar[bool] = True
    head_site_only: ClassVar[bool] = True
    virtual_tokens: ClassVar[bool] = True
    kind: Literal["prompt"] = "prompt"
    encoder: Literal["none", "mlp", "lstm"] = "none"
    hidden: Annotated[int, Field(ge=1), Domain(16, 1024, log=True)] | None = None
    lstm_layers: Annotated[int, Field(ge=1), Domain(1, 2)] = 2

    def zero_values_at_init(self, value_init: InitSpec) -> bool:
        return False

    def build(self, wanted: SlotShape) -> nn.Module:
        return PromptSlots(wanted.site)

    def build_whole(self, shape: SiteShape, count: int, init: InitSpec) -> nn.Module:
        return VirtualTokens(self, shape, count, init)


class PromptSlots(nn.Module):
    """One layer's view of the prompt: K (Hkv, P, d), V (Hkv, P, dv) of the kv heads in scope. It owns no parameter."""

    prompt: nn.Module

    def __init__(self, shape: SiteShape) -> None:
        super().__init__()
        used = sorted(set(shape.kv_head_of_heads()))
        self.kv_heads = None if len(used) == shape.kv_heads else used
        self.dtype = compute_dtype(shape.dtype)

    def refer(self, prompt: nn.Module) -> None:
        """The virtual tokens, which the model owns."""
        self.__dict__["prompt"] = prompt

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        assert capture.prompt_kv is not None
        key, value = capture.prompt_kv(self.prompt)
        if self.kv_heads is not None:
            key, value = key[self.kv_heads], value[self.kv_heads]
        return key.to(self.dtype), value.to(self.dtype)

    def deployed_parameters(self) -> int:
        """The virtual tokens are counted where they are owned."""
        return 0


class VirtualTokens(nn.Module):
    """-> E (P, D)."""

    def __init__(self, spec: Prompt, shape: SiteShape, count: int, init: InitSpec) -> None:
        super().__init__()
        width, self.kind = shape.hidden_width, spec.encoder
        hidden = width if spec.hidden is None else spec.hidden
        self.embedding = nn.Parameter(torch.empty(count, width))
        init.fill_(self.embedding.data)
        if spec.encoder == "mlp":
            self.head = nn.Sequential(
                *(nn.Linear(width, hidden), nn.ReLU()),
                *(nn.Linear(hidden, hidden), nn.ReLU()),
                nn.Linear(hidden, width),
            )
        if spec.encoder == "lstm":
            self.lstm = nn.LSTM(width, hidden, spec.lstm_layers, bidirectional=True, batch_first=True)
            self.head = nn.Sequential(
                *(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU()), nn.Linear(2 * hidden, width)
            )

    def forward(self) -> Tensor:
        if self.kind == "none":
            return self.embedding
        encoded = self.embedding if self.kind == "mlp" else self.lstm(self.embedding[None])[0][0]
        tokens: Tensor = self.head(encoded)
        return tokens

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over: E alone."""
        return self.embedding.numel()

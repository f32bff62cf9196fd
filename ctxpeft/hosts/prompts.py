"""Virtual tokens: the frozen model reads them once a pass, and keeps what every layer computed for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import Controller
from ctxpeft.hosts.discover import Layer
from ctxpeft.hosts.passes import Pass, PromptKV
from ctxpeft.hosts.site import Site


def check_causal(model: nn.Module, layers: list[Layer]) -> None:
    """Raises HostError where the virtual tokens would have to see the input."""
    config: Any = getattr(model, "config", None)
    bidirectional = any(not getattr(layer.attention, "is_causal", True) for layer in layers)
    if bidirectional or getattr(config, "is_encoder_decoder", False):
        raise HostError(
            "parameterization 'prompt' needs a causal model: in this one the virtual tokens would see the input, and "
            "what the model computes for them would depend on it"
        )


class Prompts:
    """The keys and values of the virtual tokens, by owner.

    While a cache grows they are computed once: a pass that continues on a cache takes those of the pass before, unless
    a parameter of the prompt has changed or the pass needs their gradient. A compiled pass always computes them.
    """

    def __init__(self, model: nn.Module, controller: Controller, shared: Site) -> None:
        self.model, self.controller, self.shared = model, controller, shared
        self.kept: dict[nn.Module, tuple[Any, PromptKV]] = {}

    def fill(self, facts: Pass, names: tuple[str, ...]) -> None:
        """Put the keys and values of every prompt of these adapters into the facts of a pass."""
        for name in names:
            if name in self.shared.adapters:
                for blocks in self.shared.adapters[name].children():
                    owner = blocks._modules.get("prompt")
                    if owner is not None:
                        facts.prompts[owner] = self._of(owner, facts)

    def forget(self, name: str) -> None:
        """Drop what is kept for an adapter."""
        if name in self.shared.adapters:
            for module in self.shared.adapters[name].modules():
                self.kept.pop(module, None)

    def _of(self, owner: nn.Module, facts: Pass) -> PromptKV:
        if torch.compiler.is_compiling():
            return self._read(owner)
        state = _state(owner, self.model)
        version, found = self.kept.get(owner, (None, {}))
        if facts.cached and version == state:
            return found
        found = self._read(owner)
        if any(t.requires_grad for pair in found.values() for t in pair):
            self.kept.pop(owner, None)
        else:
            self.kept[owner] = (state, found)
        return found

    def _read(self, owner: nn.Module) -> PromptKV:
        """The frozen model over the virtual tokens at positions 0 to P-1, no adapter of ours active."""
        base: Any = getattr(self.model, "base_model", self.model)
        like: Tensor = base.get_input_embeddings().weight
        tokens: Tensor = owner()
        with self.controller.record() as found, _without_checkpointing(base, tokens.requires_grad):
            base(inputs_embeds=tokens.to(like.device, like.dtype)[None], use_cache=False)
        return {layer: (states.rotated_key, states.value) for layer, states in found.items()}


def _state(owner: nn.Module, model: nn.Module) -> Any:
    """What the keys and values depend on while a cache grows, and whether they can be used for gradients."""
    mode = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), model.training)
    return mode, tuple((id(p), 0 if p.is_inference() else p._version) for p in owner.parameters())


@contextlib.contextmanager
def _without_checkpointing(base: nn.Module, trained: bool) -> Iterator[None]:
    """Inside the block no layer is checkpointed: there are few virtual tokens, and their states are kept anyway.

    Raises HostError under reentrant checkpointing, whose nested backward passes cannot share them.
    """
    on: list[Any] = [m for m in base.modules() if getattr(m, "gradient_checkpointing", False)]
    for module in on:
        function = getattr(module, "_gradient_checkpointing_func", None)
        if trained and base.training and getattr(function, "keywords", {}).get("use_reentrant"):
            raise HostError(
                "virtual tokens cannot be trained under reentrant gradient checkpointing; use "
                "model.gradient_checkpointing_enable({'use_reentrant': False})"
            )
    for module in on:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in on:
            module.gradient_checkpointing = True

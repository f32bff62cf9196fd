"""Virtual tokens: the frozen model reads them once a pass, and keeps what every layer computed for them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import Controller
from ctxpeft.hosts.device import execution_device
from ctxpeft.hosts.discover import Layer, embeddings
from ctxpeft.hosts.passes import Pass, PromptKV
from ctxpeft.hosts.probe import text_pass
from ctxpeft.hosts.site import Site

READ_BEFORE = "_ctxpeft_reads_prompts"
"""Marks a model on which virtual tokens were found to be what they claim to be."""


def check_readable(model: nn.Module, layers: list[Layer]) -> None:
    """Raises HostError where the virtual tokens would have to see the input, or not all of them would be seen."""
    config: Any = getattr(model, "config", None)
    bidirectional = any(not getattr(layer.attention, "is_causal", True) for layer in layers)
    if bidirectional or getattr(config, "is_encoder_decoder", False):
        raise HostError(
            "parameterization 'prompt' needs a causal model: in this one the virtual tokens would see the input, and "
            "what the model computes for them would depend on it; use parameterization 'direct' or 'mlp'"
        )
    if getattr(model, "_is_stateful", False) or _others(model, layers):
        raise HostError(
            "parameterization 'prompt' needs a model whose tokens see each other by attention alone: in this one other "
            "layers carry a state from token to token, and the virtual tokens would be missing there; use "
            "parameterization 'direct' or 'mlp'"
        )
    check_reads_embeddings(model)


def check_reads_embeddings(model: nn.Module) -> None:
    """Raises HostError where the model refuses embeddings that are those of no token."""
    base: Any = getattr(model, "base_model", model)
    weight: Any = embeddings(model)[0].weight
    if weight.device.type == "meta" and execution_device(model, weight).type == "meta":
        return
    like = torch.ones(1, 2, int(weight.shape[-1]), dtype=weight.dtype, device=execution_device(model, weight))
    try:
        text_pass(model, base, inputs_embeds=like, use_cache=False)
    except HostError as error:
        raise HostError(
            "parameterization 'prompt' needs a model that reads embeddings which are no token's; "
            f"{error}; use parameterization 'direct' or 'mlp'"
        ) from None


def _others(model: nn.Module, layers: list[Layer]) -> bool:
    """Whether a layer stands among the served ones without an attention that is served."""
    served = {layer.name for layer in layers}
    stacks = {name.rpartition(".")[0] for name in served if name.rpartition(".")[2].isdigit()}
    return any(
        f"{stack}.{i}" not in served
        for stack in stacks
        for i, _ in model.get_submodule(stack).named_children()
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
            out = base(inputs_embeds=tokens.to(like.device, like.dtype)[None].clone(), use_cache=False)
        pairs = {layer: (states.rotated_key, states.value) for layer, states in found.items()}
        if tokens.requires_grad and torch.is_grad_enabled() and _sharded(base):
            states = [t for pair in pairs.values() for t in pair]
            flat = _BehindTheModel.apply(out[0], *states)  # type: ignore[no-untyped-call]
            pairs = dict(zip(pairs, zip(flat[::2], flat[1::2], strict=True), strict=True))
        return pairs


def _sharded(base: nn.Module) -> bool:
    """Whether FSDP2 holds the model, which it does not without its module being loaded."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(isinstance(m, fsdp.FSDPModule) for m in base.modules())


class _BehindTheModel(torch.autograd.Function):
    """The keys and values as they are, their gradients on condition that the output of the pass has one, of zeros.

    FSDP2 gathers the weights of a layer when a gradient reaches the layer's output; that of keys and values does not
    go through it.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        ctx.like = out.new_zeros(()).expand(out.shape)
        return tuple(t.view_as(t) for t in states)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return (ctx.like, *grads)


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

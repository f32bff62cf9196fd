"""What is measured against the frozen model: our variants, and HF PEFT's methods at the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, StaticCache

import ctxpeft
from benchmarks.hosts import twin
from benchmarks.timing import FLOOR
from ctxpeft.hosts.attach import place

OURS = (
    "prefix-tuning-plus",
    "prefix-tuning-plus-kv-shared",
    "prefix-tuning-plus-low-rank",
    "prefix-tuning-plus-gated",
    "ntk-attention",
    "parallel-adapter-ffn",
    "prefix-tuning",
    "length-compensated",
    "cartridge",
    "prompt-tuning",
    "llama-adapter",
    "unipelt",
)
WRAPPED = {"lora-qv": "PEFT LoRA (q, v)", "lora-all": "PEFT LoRA (all linear)"}
REPLACES = {
    "prefix-tuning-plus": "PEFT prefix tuning",
    "prefix-tuning": "PEFT prefix tuning",
    "cartridge": "PEFT cartridge",
    "prompt-tuning": "PEFT prompt tuning",
    "llama-adapter": "PEFT LLaMA-Adapter",
}
MATRICES = (
    "prefix-tuning-plus",
    "prefix-tuning-plus-kv-shared",
    "prefix-tuning-plus-low-rank",
    "prefix-tuning-plus-gated",
    "ntk-attention",
)
SLOTS = ("prefix-tuning", "length-compensated", "cartridge", "prompt-tuning")


@dataclass
class Subject:
    """A model and how it is called. group: floor, ours or peft. base: what decodes on a cache. handle: of ours.
    compiled: what stands in for both under torch.compile.
    """

    name: str
    group: str
    model: Any
    base: Any
    handle: Any = None
    compiled: Any = None

    def step(self, ids: Tensor) -> None:
        """Forward, loss and backward."""
        model = self.model if self.compiled is None else self.compiled
        if self.group == FLOOR:
            embedded = self.base.get_input_embeddings()(ids).detach().requires_grad_()
            out = model(inputs_embeds=embedded, labels=ids, use_cache=False)
        else:
            out = model(input_ids=ids, labels=ids, use_cache=False)
        out.loss.backward()
        for parameter in self.trained:
            parameter.grad = None

    @cached_property
    def trained(self) -> list[Any]:
        """Parameters with gradients, found once: a walk through the model is no part of a step."""
        found = {id(p): p for part in (self.base, self.model) for p in part.parameters() if p.requires_grad}
        return list(found.values())

    @torch.no_grad()
    def prefill(self, ids: Tensor) -> Cache:
        """A prompt through the model, into a new cache."""
        cache: Cache = self.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True
        ).past_key_values
        return cache

    @torch.no_grad()
    def decode(self, cache: Cache, first: Tensor, count: int) -> Tensor:
        """Greedy tokens one by one on a cache, which is left as it was; the last of them."""
        token = first
        for _ in range(count):
            mask = first.new_ones(len(first), cache.get_seq_length() + 1)
            out = self.base(input_ids=token, attention_mask=mask, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        cache.crop(-count)
        return token

    @torch.no_grad()
    def prefill_static(self, ids: Tensor, room: int) -> StaticCache:
        """A prompt through the model as it is, into a static cache with room for so many tokens more."""
        cache = StaticCache(config=self.base.config, max_cache_len=ids.shape[1] + room)
        self.base(input_ids=ids, past_key_values=cache, use_cache=True)
        return cache

    @torch.no_grad()
    def decode_static(self, cache: StaticCache, first: Tensor, count: int) -> Tensor:
        """The same through the compiled model on a static cache."""
        token, filled = first, [layer.cumulative_length.clone() for layer in cache.layers]
        for _ in range(count):
            out = self.compiled(input_ids=token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        for layer, before in zip(cache.layers, filled, strict=True):
            layer.cumulative_length.copy_(before)
        return token

    def compile(self, backend: str = "inductor") -> None:
        """Compile the model that is called."""
        self.compiled = torch.compile(self.model, backend=backend)


def floor(model: Any) -> Subject:
    """The frozen model, with gradients down to the input embeddings."""
    mine = twin(model)
    return Subject(FLOOR, FLOOR, mine, mine)


def ours(model: Any, variant: Any, name: str | None = None) -> Subject:
    """A variant, attached. Memories that begin from a text are left as they are made: there is none here."""
    mine = twin(model)
    found = ctxpeft.load_variant(variant)
    handle = place(mine, found, "default", 0)
    return Subject(name or found.name, "ours", mine, mine, handle)


def wrapped(model: Any, variant: str) -> Subject:
    """LoRA as PEFT injects it."""
    mine = twin(model)
    handle = ctxpeft.attach(mine, variant, seed=0)
    return Subject(WRAPPED[variant], "peft", mine, mine, handle)


def peft_methods(model: Any) -> dict[str, Callable[[], Subject]]:
    """PEFT's own prompt methods at the sizes of the variants that replace them."""
    import peft

    layers = model.config.num_hidden_layers
    configs = {
        "PEFT prefix tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=32),
        "PEFT cartridge": lambda: peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=16),
        "PEFT prompt tuning": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20),
        "PEFT LLaMA-Adapter": lambda: peft.AdaptionPromptConfig(
            task_type="CAUSAL_LM", adapter_len=16, adapter_layers=layers
        ),
    }

    def make(name: str) -> Callable[[], Subject]:
        def build() -> Subject:
            mine = twin(model)
            torch.manual_seed(0)
            wrapper = peft.get_peft_model(mine, configs[name]()).eval()
            return Subject(name, "peft", wrapper, wrapper.get_base_model())

        return build

    return {name: make(name) for name in configs}


def subjects(model: Any, names: Sequence[str] | None = None) -> list[Subject]:
    """The floor first, then all, or those named."""
    makers: dict[str, Callable[[], Subject]] = {name: (lambda n=name: ours(model, n)) for name in OURS}
    makers |= peft_methods(model)
    makers |= {title: (lambda v=variant: wrapped(model, v)) for variant, title in WRAPPED.items()}
    chosen = [name for name in makers if names is None or name in names]
    return [floor(model), *(makers[name]() for name in chosen)]


def loss(model: Any, ids: Tensor) -> Tensor:
    """Mean cross entropy of the next token, for tests."""
    logits = model(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

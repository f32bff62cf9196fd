"""The ground of host laws: a variant on a model, batches, passes, and everything put back afterwards."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import ctxpeft
from ctxpeft.errors import LawError
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.evidence import OTHER_KERNEL, SAME_KERNEL, Bound, Evidence, Run
from ctxpeft.testing.tiny import perturb


class DoesNotApply(Exception):  # noqa: N818 - an answer, not an error
    """Raised in a law with the reason why it cannot be asked of this model or variant."""


@dataclass(frozen=True)
class Batch:
    """Token ids (B, T), which of them are real, and which of them are generated rather than prompt (B, T)."""

    ids: Tensor
    mask: Tensor
    generated: Tensor

    def padded(self, count: int, side: str) -> Batch:
        """The same rows with `count` more padding positions on the `left` or on the `right`."""
        zeros = self.ids.new_zeros(len(self.ids), count)
        parts = ([zeros, x] if side == "left" else [x, zeros] for x in self._tensors())
        return Batch(*(torch.cat(pair, 1) for pair in parts))

    def hidden(self, count: int) -> Batch:
        """The first `count` tokens of the first row made padding."""
        mask = self.mask.clone()
        mask[0, :count] = 0
        return replace(self, ids=self.ids * mask, mask=mask)

    def rows(self, which: list[int]) -> Batch:
        """Some rows."""
        return Batch(*(x[which] for x in self._tensors()))

    def prompt(self) -> Batch:
        """The same tokens, all of them prompt."""
        return replace(self, generated=torch.zeros_like(self.generated))

    def followed_by(self, ids: Tensor) -> Batch:
        """The rows with more real, generated tokens at their end."""
        new = (ids, torch.ones_like(ids), torch.ones_like(ids))
        return Batch(*(torch.cat(pair, 1) for pair in zip(self._tensors(), new, strict=True)))

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.ids, self.mask, self.generated

    def positions(self) -> Tensor:
        """(B, T): counted over real tokens."""
        return (self.mask.cumsum(1) - 1).clamp_min(0)


class Host:
    """A variant on a model. Laws take batches from it, run the model through it and leave comparisons in `evidence`.

    std: how far `attached` moves parameters from their init. tokenizer: for variants that begin from a text.
    scaled: bounds are against the largest logit, not each. bare: the model alone, to see what it does by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        variant: Variant,
        std: float = 0.3,
        tokenizer: Any = None,
        scaled: bool = False,
    ) -> None:
        self.model: Any = model
        self.variant = variant
        self.tokenizer = tokenizer
        self.scoped = any(m.scope.tokens != "all" for m in variant.modules)
        self.std = std
        self.scaled = scaled
        self.bare = False
        self.evidence = Evidence()
        weights = (p for p in model.parameters() if p.is_floating_point())
        self.dtype = next((p.dtype for p in weights if p.ndim == 2), torch.float32)

    @property
    def same_kernel(self) -> Bound:
        """What the same computation may differ by in this model's type."""
        return SAME_KERNEL.get(self.dtype, SAME_KERNEL[torch.bfloat16])

    @property
    def other_kernel(self) -> Bound:
        """What two ways to compute the same may differ by in this model's type."""
        return OTHER_KERNEL.get(self.dtype, OTHER_KERNEL[torch.bfloat16])

    @property
    def gradient(self) -> Bound:
        """What a gradient may differ by when it is recomputed."""
        return Bound(self.same_kernel.absolute, 10 * self.same_kernel.relative)

    @cached_property
    def ordinary(self) -> Tensor:
        """The token ids that are not special."""
        config = self.model.config.get_text_config()
        special: set[Any] = {0, 1, 2}
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            found = getattr(config, name, None)
            special |= set(found) if isinstance(found, list | tuple) else {found}
        return torch.tensor([i for i in range(config.vocab_size) if i not in special])

    def batch(self, rows: int, tokens: int, seed: int = 1) -> Batch:
        """Random tokens, special ones left out; the second half of each row counts as generated."""
        picked = torch.randint(
            len(self.ordinary), (rows, tokens), generator=torch.Generator().manual_seed(seed)
        )
        ids = self.ordinary[picked].to(self.model.get_input_embeddings().weight.device)
        generated = (torch.arange(tokens, device=ids.device) >= tokens // 2).expand_as(ids).long()
        return Batch(ids, torch.ones_like(ids), generated)

    @contextlib.contextmanager
    def attached(self, name: str = "law", seed: int = 0, moved: bool = True) -> Iterator[BaseHandle]:
        """Inside the block the variant is on the model, its parameters moved from their init."""
        handle = ctxpeft.attach(self.model, self.variant, name=name, seed=seed, tokenizer=self.tokenizer)
        try:
            if moved:
                perturb(handle, self.std, seed)
            yield handle
        finally:
            if handle.attached:
                handle.detach()

    @contextlib.contextmanager
    def adapted(self) -> Iterator[None]:
        """As `attached`, for laws that ask only what the model says; nothing is attached to a bare model."""
        with contextlib.nullcontext() if self.bare else self.attached():
            yield

    def run(self, batch: Batch, **options: Any) -> Run:
        """A forward pass without gradients. The mask and positions are given where a token is padding."""
        with torch.no_grad():
            out = self.forward(batch, output_hidden_states=True, **options)
        return Run(out.logits, list(out.hidden_states or ())[1:])

    def forward(self, batch: Batch, **options: Any) -> Any:
        """What the model returns for a batch, gradients included."""
        given: dict[str, Any] = {"input_ids": batch.ids, **options}
        if not bool(batch.mask.all()):
            given["attention_mask"] = batch.mask
            if "position_ids" in inspect.signature(self.model.forward).parameters:
                given["position_ids"] = batch.positions()
        told = self.scoped and "_ctxpeft" in vars(self.model)
        with ctxpeft.segments(self.model, batch.generated.bool()) if told else contextlib.nullcontext():
            return self.model(**given)

    @contextlib.contextmanager
    def attention(self, backend: str) -> Iterator[None]:
        """Inside the block the model computes attention with `backend`. Raises DoesNotApply where it refuses."""
        before = self.model.config._attn_implementation
        try:
            self.model.set_attn_implementation(backend)
        except (ValueError, ImportError, RuntimeError) as error:
            self.model.set_attn_implementation(before)
            raise DoesNotApply(f"the model has no '{backend}' attention: {_first_line(error)}") from None
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)

    @contextlib.contextmanager
    def greedy(self) -> Iterator[None]:
        """Inside the block `generate` takes the likeliest token and does not stop early."""
        from transformers import GenerationConfig

        before = self.model.generation_config
        self.model.generation_config = GenerationConfig(pad_token_id=0, do_sample=False)
        try:
            yield
        finally:
            self.model.generation_config = before

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Inside the block the model is in training mode, dropout off."""
        modes = {module: module.training for module in self.model.modules()}
        dropouts = {m: m.p for m in modes if isinstance(m, nn.Dropout)}
        self.model.train()
        for module in dropouts:
            module.p = 0.0
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for module, p in dropouts.items():
                module.p = p

    def gradients(self, handle: BaseHandle, batch: Batch) -> dict[str, Tensor | None]:
        """Gradients of the next-token loss for every parameter of the adapter."""
        torch.autograd.backward(self.loss(batch))
        return self.collect(handle)

    def loss(self, batch: Batch) -> Tensor:
        """The next-token loss over real tokens."""
        labels = batch.ids.masked_fill(batch.mask == 0, -100)
        loss: Tensor = self.forward(batch, labels=labels, use_cache=False).loss
        return loss

    @staticmethod
    def collect(handle: BaseHandle) -> dict[str, Tensor | None]:
        """The gradients that lie on the adapter's parameters, taken away from there."""
        found = {key: p.grad for key, p in handle.named_parameters()}
        for parameter in handle.parameters():
            parameter.grad = None
        return found


def require(condition: bool, message: str) -> None:
    """Raises LawError with the message where the condition does not hold."""
    if not condition:
        raise LawError(message)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

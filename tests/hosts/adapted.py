"""A tiny model with modules attached, for the tests of the short ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import ctxpeft
from ctxpeft.testing.tiny import perturb, tiny_model


def adapted(
    modules: list[dict[str, Any]], dtype: torch.dtype = torch.float64, family: str = "llama", **options: Any
) -> tuple[nn.Module, Any]:
    """The model and the handle, whose values are no longer those of the start."""
    model = tiny_model(family, **options).to(dtype)
    handle = ctxpeft.attach(model, {"name": "short", "modules": modules}, seed=0)
    perturb(handle)
    return model, handle


@contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    """An instrument looks on, for which the general way is taken."""
    controller = model.__dict__["_ctxpeft"]
    controller.watch = lambda *_: None
    try:
        yield
    finally:
        controller.watch = None


def gradients(model: Any, handle: Any, ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """The logits of what the mask keeps, and gradients of the input embeddings and of every parameter of the
    adapter."""
    states = model.get_input_embeddings()(ids).detach().requires_grad_()
    out = model(inputs_embeds=states, attention_mask=mask, use_cache=False).logits
    out = out if mask is None else out[mask.bool()]
    loss = (out * torch.linspace(-1, 1, out.shape[-1], dtype=out.dtype)).sum()
    return [out.detach(), *torch.autograd.grad(loss, [states, *handle.parameters()])]


def assert_alike(found: list[Tensor], wanted: list[Tensor], limit: float) -> None:
    """Each tensor is the other's, by its largest entry."""
    for mine, theirs in zip(found, wanted, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=limit, atol=limit)


class Scaled(nn.Module):
    """A parametrization: the tensor times a number, which may be set."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, t: Tensor) -> Tensor:
        return t * self.by

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


class Scaled(nn.Module):
    """A parametrization: the tensor times a number, which may be set."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, t: Tensor) -> Tensor:
        return t * self.by

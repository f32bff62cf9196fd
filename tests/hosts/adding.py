"""What adds to the content, and how it is told whether it went the short way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ctxpeft.blocks.context_module import ContextModule
from tests.hosts.adapted import watched

IDS = torch.randint(3, 61, (3, 7), generator=torch.Generator().manual_seed(4))
SLOTS = {"kind": "slots", "count": 3}
TOKEN = {"kind": "token", "activation": "sigmoid"}


def module(source: str = "rotated", **more: Any) -> dict[str, Any]:
    plain = {"placement": "outside", "query": {"source": source}, "feature_map": {"kind": "elu"}}
    return plain | {"memory": {"kind": "matrix"}} | more


@contextmanager
def counted() -> Iterator[list[int]]:
    """How often modules went the short way."""
    calls: list[int] = []
    real = ContextModule.add_to

    def add_to(self: ContextModule, output: Tensor, query: Tensor, *more: Any) -> Tensor:
        calls.append(1)
        return real(self, output, query, *more)

    with patch.object(ContextModule, "add_to", add_to):
        yield calls


def long_way(model: nn.Module, ids: Tensor) -> Tensor:
    """The logits by the general way."""
    with torch.no_grad(), watched(model), counted() as calls:
        found: Tensor = model(ids).logits
    assert not calls
    return found

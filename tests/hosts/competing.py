"""What competes with the content, and how it is told whether it went the short way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts import short
from tests.hosts.adapted import watched

IDS = torch.randint(3, 61, (3, 9), generator=torch.Generator().manual_seed(4))


PADDED = torch.tensor([[1] * 9, [0] * 2 + [1] * 7, [0] * 4 + [1] * 5])


MATRIX = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}


def slots(count: int = 3, memory: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    init = {"kind": "normal", "std": 0.5}
    kind = {"kind": "slots", "count": count, "init": init, **(memory or {})}
    return {"placement": "inside", "memory": kind, **more}


def massed(per: str = "query_head", **query: Any) -> dict[str, Any]:
    """A matrix that competes by its mass, of positive features."""
    memory = {"kind": "matrix", "per": per}
    return {"placement": "inside", "feature_map": {"kind": "elu_plus_one"}, "memory": memory, "query": query}


WEIGHED = [
    slots(merge="compete_length"),
    slots(1, merge="compete_length", length_bias=2.0),
    massed(),
    massed("kv_head", scale="inverse_fourth_root"),
    massed("layer", norm="rms"),
    {**massed(), "feature_map": {"kind": "relu"}},
]


@contextmanager
def counted() -> Iterator[list[bool]]:
    """Of every attempt at the short way whether it served."""
    calls: list[bool] = []
    real = short.beside

    def beside(*args: Any) -> Tensor | None:
        found = real(*args)
        calls.append(found is not None)
        return found

    with patch("ctxpeft.hosts.seam.beside", beside):
        yield calls


def layers(model: nn.Module) -> int:
    """Those with something that competes."""
    return sum(isinstance(m, ContextModule) and m.spec.placement == "inside" for m in model.modules())


def is_weighed(model: nn.Module) -> bool:
    return any(isinstance(m, ContextModule) and m.weighed for m in model.modules())


def long_way(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """All tokens at once by the general way, without gradients."""
    positions = None if mask is None else (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad(), watched(model), counted() as calls:
        found: Tensor = model(ids, attention_mask=mask, position_ids=positions).logits
    assert not calls
    return found


def decoded(model: nn.Module, ids: Tensor, mask: Tensor, cache: Any, begin: int = 5) -> Tensor:
    """A prompt, then token by token; all go the short way, in every layer, but for a prompt whose content is weighed
    against the input's length or a matrix."""
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    found = []
    with torch.no_grad():
        for start, end in ((0, begin), *((i, i + 1) for i in range(begin, ids.shape[1]))):
            with counted() as calls:
                out = model(
                    ids[:, start:end],
                    attention_mask=mask[:, :end],
                    position_ids=positions[:, start:end],
                    past_key_values=cache,
                )
            assert calls == [end - start == 1 or not is_weighed(model)] * layers(model)
            found.append(out.logits)
    return torch.cat(found, 1)


def ways(model: nn.Module) -> None:
    """One token, the short way and the long one."""
    with torch.no_grad(), counted() as calls:
        found = model(IDS[:, :1]).logits
    assert calls == [True] * layers(model)
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)

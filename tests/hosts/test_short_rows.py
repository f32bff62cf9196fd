"""What competes with the content goes the short way for rows that have adapters of their own."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts import seam
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.competing import (
    IDS,
    MATRIX,
    PADDED,
    WEIGHED,
    counted,
    long_way,
    slots,
)


@pytest.mark.parametrize("per", ["query_head", "kv_head", "layer"])
@pytest.mark.parametrize("merge", ["compete", "compete_length"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_whose_slots_they_are_does_not_hang_on_the_size_of_a_batch(
    per: str, merge: str, kv_heads: int
) -> None:
    """One set for each head, key head or layer, of each row or of all: as many sets may mean another thing."""
    one = slots(merge=merge, memory={"per": per})
    model: Any = tiny_model("llama", num_key_value_heads=kv_heads).double()
    for seed, name in enumerate("ab"):
        perturb(ctxpeft.attach(model, {"name": name, "modules": [one]}, name=name, seed=seed), seed=seed)
    for rows in range(1, 5):
        ids = torch.cat([IDS, IDS])[:rows, :1]
        ctxpeft.activate(model, "a")
        with torch.no_grad():
            found = model(ids).logits
        torch.testing.assert_close(found, long_way(model, ids), rtol=1e-10, atol=1e-10)
        with torch.no_grad(), ctxpeft.route(model, list("abab"[:rows])):
            found = model(ids).logits
        expected = row_by_row(model, list("abab"[:rows]), ids, torch.ones_like(ids))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def routed(modules: list[dict[str, Any]], names: str = "abc") -> nn.Module:
    model = tiny_model("llama").double()
    for seed, name in enumerate(names):
        handle = ctxpeft.attach(model, {"name": "short", "modules": modules}, name=name, seed=seed)
        perturb(handle, seed=seed)
    return model


def row_by_row(model: nn.Module, rows: list[str], ids: Tensor, mask: Tensor) -> Tensor:
    found = []
    for row, name in enumerate(rows):
        ctxpeft.activate(model, [name])
        found.append(long_way(model, ids[row : row + 1], mask[row : row + 1]))
    return torch.cat(found)


ASKED = {"source": "rotated", "norm": "rms", "learned_temperature": True}
GATED = [
    MATRIX | {"query": ASKED},
    MATRIX | {"gate": {"kind": "scalar", "per": "layer"}},
    MATRIX
    | {"query": ASKED, "gate": {"kind": "token", "source": "query"}}
    | {"memory": {"kind": "matrix", "per": "kv_head", "form": "low_rank", "rank": 2}},
]


@pytest.mark.parametrize(
    "modules", [[slots()], [slots(), MATRIX], [MATRIX, MATRIX], *([one] for one in (*WEIGHED, *GATED))]
)
@pytest.mark.parametrize("rows", ["abc", "aba", "aaa"])
@pytest.mark.parametrize("padded", [False, True])
def test_an_adapter_a_row(modules: list[dict[str, Any]], rows: str, padded: bool) -> None:
    """Also where all rows have the same one, and after one of them has changed."""
    model = routed(modules)
    mask = PADDED if padded else torch.ones_like(IDS)
    served = [True] * 2 * any(one["placement"] == "inside" for one in modules)
    for factor in (1, -2):
        with torch.no_grad():
            for parameter in model.__dict__["_ctxpeft"].handles["a"].parameters():
                parameter.mul_(factor)
        expected = row_by_row(model, list(rows), IDS, mask)
        with torch.no_grad(), ctxpeft.route(model, list(rows)):
            cache = DynamicCache(config=model.config)
            places = (mask.cumsum(1) - 1).clamp_min(0)
            options = {"attention_mask": mask, "past_key_values": cache}
            model(IDS[:, :8], position_ids=places[:, :8], **{**options, "attention_mask": mask[:, :8]})
            with counted() as calls, patch.object(seam, "merge", side_effect=AssertionError):
                last = model(IDS[:, 8:], position_ids=places[:, 8:], **options).logits
        assert calls == served
        torch.testing.assert_close(last, expected[:, 8:], rtol=1e-10, atol=1e-10)


def test_rows_of_beams_and_rows_without_an_adapter() -> None:
    model = routed([slots(), MATRIX], "ab")
    ids = IDS[:2, :1].repeat_interleave(2, 0)
    mask = torch.ones_like(ids)
    with torch.no_grad(), counted() as calls, ctxpeft.route(model, ["a", "b"]):
        found = model(ids).logits
    assert calls == [True, True]
    expected = row_by_row(model, ["a", "a", "b", "b"], ids, mask)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad(), counted() as calls, ctxpeft.route(model, ["a", None, "b", "a"]):
        found = model(ids).logits
    assert not calls
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], rtol=1e-10, atol=1e-10)
    with (
        torch.no_grad(),
        ctxpeft.route(model, ["a", "a", "a"]),
        pytest.raises(HostError, match="3 rows"),
    ):
        model(ids)

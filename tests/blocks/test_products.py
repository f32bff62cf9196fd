"""Products with what a feature map makes: what is kept for the backward pass, and that it changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from ctxpeft.blocks import products
from ctxpeft.blocks.grouping import Grouping
from ctxpeft.testing.compare import assert_same_with_gradients

MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "one": torch.ones_like,
    "twice as wide": lambda x: torch.cat([x.relu(), (-x).relu()], -1),
    "half as wide": lambda x: x[..., ::2].square(),
}
WIDTH = 4


def drawn(seed: int, *shape: int) -> Tensor:
    made = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_()


def grouping(heads: int, groups: int) -> Grouping:
    shape = SimpleNamespace(
        group_of_heads=lambda per: [h * groups // heads for h in range(heads)], device=torch.device("cpu")
    )
    return Grouping(shape, "kv_head")  # type: ignore[arg-type]


@given(
    name=st.sampled_from(sorted(MAPS)),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 4),
    groups=st.integers(1, 3),
    each=st.integers(1, 2),
    count=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_kept_and_computed_again_are_the_equation(
    name: str, rows: int, tokens: int, groups: int, each: int, count: int, seed: int
) -> None:
    """o + phi(q) W head by head, and phi(q) W of groups of heads, with all gradients."""
    phi, heads = MAPS[name], groups * each
    width = phi(torch.zeros(1, WIDTH)).shape[-1]
    q, o = drawn(seed, rows, heads, tokens, WIDTH), drawn(seed + 1, rows, tokens, heads, 3)
    weights = [drawn(seed + 2 + i, groups, width, 3) for i in range(count)]
    of_head = drawn(seed + 4, heads, width, 3)
    added = o + torch.einsum("bhtw,hwv->bthv", phi(q), of_head)
    folded = phi(q).reshape(rows, groups, each * tokens, width)
    naive = torch.cat([torch.einsum("bgnw,gwv->bgnv", folded, w) for w in weights], -1)
    for kept in (True, False):
        with patch.object(products, "_kept", lambda *_, kept=kept: kept):
            joined = products.added_mapped(o, q, of_head, phi)
            apart = torch.cat(products.mapped(q, weights, phi, grouping(heads, groups)), -1)
        assert_same_with_gradients(joined, added, {"o": o, "q": q, "M": of_head})
        assert_same_with_gradients(apart, naive, {"q": q} | {f"W{i}": w for i, w in enumerate(weights)})


@pytest.mark.parametrize(("name", "kept"), [("elu", True), ("half as wide", True), ("twice as wide", False)])
@pytest.mark.parametrize("joined", [True, False])
def test_what_the_cpu_keeps(name: str, kept: bool, joined: bool) -> None:
    """What the map makes, where that is no wider than the query; else q and W alone."""
    phi = MAPS[name]
    q = drawn(0, 2, 3, 5, WIDTH)
    o = drawn(1, 2, 5, 3, 3)
    width = phi(q).shape[-1]
    weight = drawn(2, 3, width, 3)
    stored: list[Tensor] = []
    with saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        if joined:
            products.added_mapped(o, q, weight, phi)
        else:
            products.mapped(q, [weight], phi, grouping(3, 3))
    pointers = {t.data_ptr() for t in stored}
    assert {q.data_ptr(), weight.data_ptr()} <= pointers
    features = [t for t in stored if t.numel() == q.numel() // WIDTH * width and t.data_ptr() != q.data_ptr()]
    assert bool(features) == kept
    assert kept or len(stored) == 2

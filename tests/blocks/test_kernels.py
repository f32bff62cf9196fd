"""Kernels read rows of numbers that lie side by side; tensors that lie otherwise give the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxpeft.blocks.attention import Question, attention, joint
from ctxpeft.blocks.one_query import OneQuery
from ctxpeft.testing.compare import assert_same_with_gradients

LAYOUTS = ("rows", "every other", "turned")


def _laid(t, layout):
    """The same values, whose last axis lies in memory as `layout` says."""
    if layout == "every other":
        return torch.stack((t, torch.zeros_like(t)), -1).flatten(-2)[..., ::2]
    if layout == "turned":
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)
    return t


def _asked(tokens, repeat):
    torch.manual_seed(0)
    shapes = {"q": (2, 2 * repeat, tokens, 4), "k": (2, 2, 5, 4), "v": (2, 2, 5, 4)}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


@given(
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    tokens=st.integers(1, 5),
    repeat=st.integers(1, 3),
    slots=st.booleans(),
)
def test_how_rows_lie_changes_nothing(layouts, tokens, repeat, slots):
    """Values and gradients of the attention and its log-mass, alone and beside slots."""
    leaves = {name: t.requires_grad_() for name, t in _asked(tokens, repeat).items()}
    pair = (torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64))

    def asked(q, k, v):
        if slots:
            return joint(Question(q, k, v, None, None, tokens > 1, 0.5), pair, [])
        o, mass = attention(q, k, v, None, tokens > 1, 0.5)
        return torch.cat((o, mass[..., None]), -1)

    turned = [_laid(t, layout) for t, layout in zip(leaves.values(), layouts, strict=True)]
    assert_same_with_gradients(asked(*turned), asked(*leaves.values()), leaves)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_how_rows_lie_changes_nothing_for_one_query(layout):
    asked = _asked(1, 2)
    pair = (torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64))
    found = []
    for as_given in (False, True):
        q, k, v = (t if as_given else _laid(t, layout) for t in asked.values())
        for more in (None, 0.5):
            one = OneQuery.of(q, k, v, None, None, 0.5, torch.float64)
            found.append(one.beside_slots(pair, False, more))
    assert torch.allclose(found[0], found[2])
    assert torch.allclose(found[1], found[3])

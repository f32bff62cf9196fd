"""Fully masked rows."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks.compose import compose
from ctxpeft.blocks.naive import Head
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_close, slots_of


@algebra_law(equation="L = -∞ ⇒ o = softmax(a qᵀK_s) V_s, ρ = 1", source="the algebra")
def content_that_sees_nothing(heads: Heads) -> None:
    """A query that sees no content reads the slots alone, or nothing out of scope, with finite gradients."""
    module = heads.module({"placement": "inside", "memory": SLOTS})
    capture = heads.capture()
    capture.output = torch.zeros_like(capture.output)
    capture.log_mass = lambda: torch.full(heads.query.shape[:3], -torch.inf, dtype=torch.float64)
    out, kept = compose(capture, [(module, None)])
    assert kept is not None
    key, value = slots_of(module)

    def equation(head: Head) -> Tensor:
        g = head.kv
        return torch.softmax(head.a * head.q @ key[g].T, -1) @ value[g]

    assert_close(out, heads.per_head(equation))
    assert_close(kept, torch.zeros_like(kept))
    gradients = torch.autograd.grad(out.sum(), [heads.query, key, value])
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    nowhere, _ = compose(capture, [(module, torch.zeros(len(out), 1, dtype=torch.bool))])
    assert torch.equal(nowhere, capture.output)

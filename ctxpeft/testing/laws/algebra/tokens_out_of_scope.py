"""Scope over tokens."""

from __future__ import annotations

import torch

from ctxpeft.blocks.compose import compose
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MODULES, Spec, assert_close


@algebra_law(
    equation="o_t = merge(o_X, …)_t for t ∈ scope, o_X,t elsewhere",
    source="the algebra",
    sinks=True,
    past=True,
    module=MODULES,
    every=(1, 2, 3),
)
def tokens_out_of_scope(heads: Heads, module: Spec, every: int) -> None:
    """A module acts in full on the tokens in scope and leaves the others as the content has them."""
    built = heads.module(module)
    batch, _, tokens, _ = heads.query.shape
    inside = (torch.arange(batch)[:, None] + torch.arange(tokens)) % every == 0
    scoped, _ = compose(heads.capture(), [(built, inside)])
    expected = torch.where(inside[:, None, :, None], heads.composed(built), heads.content()[0])
    assert_close(scoped, expected)

"""Offsets that know where a token stands and not what it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.blocks.compose import compose
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law


@algebra_law(
    equation="e_t + A[t] B for t < s, e_t beyond, A (s × r), B (r × D)",
    source="DePT, arXiv:2309.05173",
    length=(1, 3, 8),
    shifted=(False, True),
)
def offsets_by_position(heads: Heads, length: int, shifted: bool) -> None:
    """Memory `positions` is DePT's low-rank table: row t of A B for the t-th real token, nothing beyond the table."""
    module = heads.module(
        {"placement": "outside", "memory": {"kind": "positions", "length": length, "rank": 2}}
    )
    batch, _, tokens, _ = heads.query.shape
    at = torch.arange(tokens)[None]
    if shifted:  # rows padded on the left, row b by b tokens
        at = (at - torch.arange(batch)[:, None]).clamp_min(0)
    declared: Any = module.spec.memory
    parameters = {k.removeprefix("memory."): p for k, p in module.named_parameters()}

    def equation(head: naive.Head) -> Tensor:
        o, _ = naive.content_attention(head)
        added: Tensor = declared.naive(at[head.row % len(at)], parameters)
        return o + added

    got = compose(replace(heads.capture(), positions=lambda: at), [(module, None)])[0]
    assert_same_with_gradients(got, heads.per_head(equation), {**heads.inputs(), **parameters})

"""The simplest feature map."""

from __future__ import annotations

import torch

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law


@algebra_law(equation="φ = 1: o = o_X + b_h", source="BitFit, arXiv:2106.10199", sinks=True)
def constant_map_is_a_bias(heads: Heads) -> None:
    """With φ = 1 Prefix-Tuning+ is a constant vector a head, which is memory `vector`, bit for bit."""
    one = heads.module({"placement": "outside", "feature_map": {"kind": "one"}, "memory": {"kind": "matrix"}})
    bias = heads.module({"placement": "outside", "memory": {"kind": "vector"}})
    vector, matrix = dict(bias.named_parameters()), dict(one.named_parameters())
    vector["memory.vector"].data = matrix["memory.matrix"].data[:, 0]
    assert torch.equal(heads.composed(one), heads.composed(bias))
    assert torch.equal(heads.composed(one), heads.content()[0] + vector["memory.vector"][None, :, None])

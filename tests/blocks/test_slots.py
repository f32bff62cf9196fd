"""Prompts behind the host's own projections."""

import torch

from ctxpeft.blocks.capture import Capture
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.problems import SLOTS


def test_nonlinear_prompts_start_as_the_prompts():
    """arXiv:2502.03029: E + MLP(E) with a last layer of zeros; every weight of the MLP can still learn."""
    heads = Heads.random(0, 2, kv_heads=2, repeat=2, tokens=4, width=3, value_width=5, mask="causal")
    W_K, W_V = torch.randn(2, 5, 3).double(), torch.randn(2, 5, 5).double()

    def capture() -> Capture:
        found = heads.capture()
        found.project_kv = lambda x: (x @ W_K, x @ W_V)
        return found

    outputs = {}
    for hidden in (None, 4):
        module = heads.module(
            {
                "placement": "outside",
                "memory": {**SLOTS, "parameterization": {"kind": "frozen_projection", "hidden": hidden}},
            },
            moved=0.0,
        )
        outputs[hidden] = module.read(capture())[0].n
    assert torch.equal(outputs[None], outputs[4])
    outputs[4].square().sum().backward()
    last = module.memory.slots.mlp[2]
    assert all(bool(p.grad.abs().sum() > 0) for p in (last.weight, last.bias, module.memory.slots.prompt))

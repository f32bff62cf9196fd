"""A memory compiled from demonstrations is exact where attention is linear."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import compose
from ctxpeft.blocks.states import TextStates
from ctxpeft.testing.heads import Heads

from .test_equations import few


def phi(x):
    return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))


def linear_attention(q, k, v, visible):
    """o_i = sum_j phi(q_i)^T phi(k_j) v_j / sum_j phi(q_i)^T phi(k_j) over visible j, and the log of the divisor."""
    weight = (phi(q) @ phi(k).transpose(-1, -2)) * visible
    return (weight @ v) / weight.sum(-1, keepdim=True), weight.sum(-1).log()


@few
@given(st.integers(0, 1000), st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
def test_exact_on_a_host_of_linear_attention(seed, kv_heads, repeat, tokens, shown):
    """ICLCA, arXiv:2406.02847: demonstrations in context = M = sum phi(k) v^T and z = sum phi(k) without them."""
    heads = Heads.random(
        seed, 2, kv_heads=kv_heads, repeat=repeat, tokens=tokens, width=3, value_width=2, mask="causal"
    )
    generator = torch.Generator().manual_seed(seed + 1)
    demo_k = torch.randn(kv_heads, shown, 3, dtype=torch.float64, generator=generator)
    demo_v = torch.randn(kv_heads, shown, 2, dtype=torch.float64, generator=generator)
    key, value = (t.detach().repeat_interleave(repeat, 1) for t in (heads.key, heads.value))
    query, visible = heads.query.detach(), heads.visible[:, None]
    output, mass = linear_attention(query, key, value, visible)
    capture = Capture(output=output, rotated=query, log_mass=lambda: mass)
    text = {"kind": "demonstrations", "text": "given as states", "method": "sum"}
    module = heads.module(
        {
            "placement": "inside",
            "feature_map": {"kind": "elu_plus_one"},
            "memory": {"kind": "matrix", "init": text},
        }
    )
    module.spec.memory.init.compile(module, [TextStates(demo_k, demo_k, demo_v, capture)])
    compiled, _ = compose(capture, [(module, None)])
    always = torch.ones(*visible.shape[:-1], shown, dtype=torch.bool)
    joined_k = torch.cat([demo_k.repeat_interleave(repeat, 0).expand(2, -1, -1, -1), key], 2)
    joined_v = torch.cat([demo_v.repeat_interleave(repeat, 0).expand(2, -1, -1, -1), value], 2)
    expected, _ = linear_attention(query, joined_k, joined_v, torch.cat([always, visible], -1))
    assert torch.allclose(compiled, expected, rtol=1e-9, atol=1e-11)

"""The fused kernel equals the score matrix: values and every gradient, of o and of L."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpeft.blocks.attention import AttentionWithMass
from ctxpeft.hosts.fused import attention_with_mass
from ctxpeft.testing.compare import assert_same_with_gradients


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 2),
    kv_heads=st.integers(1, 2),
    repeat=st.integers(1, 3),
    tokens=st.integers(1, 6),
    more=st.integers(0, 3),
    width=st.integers(1, 9),
    kind=st.sampled_from(["causal", "bool", "additive", "none"]),
)
def test_values_and_gradients(seed, batch, kv_heads, repeat, tokens, more, width, kind):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g).requires_grad_()

    length = tokens if kind == "causal" else tokens + more
    q, k, v = (
        normal(batch, kv_heads * repeat, tokens, width),
        *(normal(batch, kv_heads, length, width) for _ in "kv"),
    )
    visible = torch.rand(batch, 1, tokens, length, generator=g) < 0.6
    visible[..., 0] = True
    if kind == "causal":
        visible = torch.ones(tokens, length, dtype=torch.bool).tril()[None, None]
    if kind == "none":
        visible = torch.ones(1, 1, tokens, length, dtype=torch.bool)
    low = torch.finfo(torch.float64).min
    mask = {
        "bool": visible,
        "additive": torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, low),
    }.get(kind)
    o, mass = attention_with_mass(q, k, v, visible, mask, kind == "causal", 0.3)
    keys, values = (t.repeat_interleave(repeat, 1) for t in (k, v))
    score = (0.3 * q @ keys.transpose(2, 3)).masked_fill(~visible, -torch.inf)
    naive = torch.cat([torch.softmax(score, -1) @ values, torch.logsumexp(score, -1)[..., None]], -1)
    assert_same_with_gradients(torch.cat([o, mass[..., None]], -1), naive, {"q": q, "k": k, "v": v})


def test_gradient_of_the_mass_alone():
    """Rows whose output has no gradient take the explicit path."""
    q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    _, mass = AttentionWithMass.apply(q, k, v, None, True, 0.5)
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1)
    naive = torch.logsumexp((0.5 * q @ k.transpose(2, 3)).masked_fill(hidden, -torch.inf), -1)
    assert_same_with_gradients(mass, naive, {"q": q, "k": k, "v": v})


def test_rows_that_see_nothing_have_no_mass():
    q, k, v = (torch.randn(1, 1, 3, 4) for _ in range(3))
    visible = torch.tensor([[[[1, 0, 0], [0, 0, 0], [1, 1, 1]]]]).bool()
    o, mass = attention_with_mass(q, k, v, visible, visible, False, 0.5)
    assert torch.isneginf(mass[0, 0, 1])
    assert bool(torch.isfinite(o).all())
    assert bool(torch.isfinite(mass[0, 0, [0, 2]]).all())


def test_a_query_that_sees_nothing_passes_no_gradient():
    """Also where the scores are recomputed, which another query's zero output gradient asks for."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.zeros(1, 1, 3, 3)
    mask[..., 0, :] = -torch.inf
    _, mass = AttentionWithMass.apply(q, k, v, mask, False, 0.5)
    mass[..., 1:].sum().backward()
    for t in (q, k):
        assert bool(torch.isfinite(t.grad).all())
        assert bool((t.grad != 0).any())
    assert bool((q.grad[..., 0, :] == 0).all())

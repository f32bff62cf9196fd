"""What the content softmax saw, recomputed from q, k, mask and options: L, and the keys each query sees."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpeft.hosts.content import Content
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import MASKS, Problem


@pytest.mark.parametrize("form", ["bool", "additive"])
@settings(max_examples=60)
@given(
    st.builds(
        Problem,
        seed=st.integers(0, 10_000),
        batch=st.integers(1, 2),
        kv_heads=st.integers(1, 2),
        repeat=st.integers(1, 3),
        tokens=st.integers(1, 5),
        width=st.integers(1, 5),
        mask=st.sampled_from(MASKS),
        window=st.integers(1, 4),
        past=st.integers(0, 3),
        sinks=st.booleans(),
        softcap=st.sampled_from([None, 1.5]),
    )
)
def test_log_mass_and_key_count(form, problem):
    """Softcap, sinks, windows, padding and a cache longer than the queries; values and gradients."""
    heads = problem.heads()
    mask = heads.visible[:, None]
    if form == "additive":
        mask = torch.zeros(mask.shape).double().masked_fill(~mask, torch.finfo(torch.float64).min)
    options = {"scaling": heads.scaling, "softcap": heads.softcap, "s_aux": heads.sinks}
    content = Content(SimpleNamespace(), heads.query, heads.key, mask, options, "eager")
    inputs = {key: t for key, t in heads.inputs().items() if key != "value"}
    assert_same_with_gradients(content.log_mass(), heads.content()[1], inputs)
    assert torch.equal(content.key_count().expand(len(mask), 1, -1)[:, 0], heads.visible.sum(-1))


@pytest.mark.parametrize("tokens", [1, 4])
def test_no_mask_is_causal_where_the_backend_says_so(tokens):
    """sdpa is given no mask and several queries: each sees what is before it; a single query sees the whole cache."""
    heads = Problem(
        tokens=tokens, kv_heads=2, repeat=2, batch=2, width=3, past=0 if tokens > 1 else 3
    ).heads()
    told = SimpleNamespace(is_causal=True)
    content = Content(told, heads.query, heads.key, None, {"scaling": heads.scaling}, "sdpa")
    assert torch.allclose(content.log_mass(), heads.content()[1], rtol=1e-12, atol=1e-12)
    assert torch.equal(content.key_count().expand(2, 1, tokens)[:, 0], heads.visible.sum(-1))
    assert Content(told, heads.query, heads.key, None, {}, "sdpa").scaling() == pytest.approx(3**-0.5)

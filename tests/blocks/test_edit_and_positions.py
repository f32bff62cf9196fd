"""The memories of ReFT and DePT equal their equations, values and every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.errors import HostError
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.compare import assert_same_with_gradients

few = settings(max_examples=25)


def shape(width):
    return SiteShape(1, 1, (0,), width, width, width, width**-0.5, None, torch.float64, torch.device("cpu"))


def built(spec, width, seed):
    torch.manual_seed(seed)
    module = ContextModule(ModuleSpec.model_validate(spec), shape(width))
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module


def stream(batch, tokens, width, seed, positions=None):
    x = torch.randn(
        batch, 1, tokens, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    x.requires_grad_()
    return x, Capture(output=x, hidden=x, positions=lambda: positions)


@few
@given(st.integers(0, 1000), st.integers(1, 2), st.integers(1, 4), st.integers(1, 6), st.data())
def test_edit_is_loreft(seed, batch, tokens, width, data):
    """LoReFT, arXiv:2404.03592: h + R^T (W h + b - R h), rows of R orthonormal."""
    rank = data.draw(st.integers(1, width))
    module = built(
        {"placement": "outside", "site": "residual", "memory": {"kind": "edit", "rank": rank}}, width, seed
    )
    x, capture = stream(batch, tokens, width, seed)
    parameters = {k.removeprefix("memory."): p for k, p in module.named_parameters()}
    one = {k: p[0] for k, p in parameters.items()}
    expected = torch.stack([module.spec.memory.naive(row[0], one) for row in x])[:, None]
    read, _ = module.read(capture)
    assert_same_with_gradients(read.n, expected, {"x": x, **parameters}, relative=1e-7)


def test_edit_refuses_what_it_cannot_be():
    spec = ModuleSpec.model_validate(
        {"placement": "outside", "site": "residual", "memory": {"kind": "edit", "rank": 8}}
    )
    with pytest.raises(HostError, match="rank 8 is more than the width 4"):
        ContextModule(spec, shape(4))


@few
@given(st.integers(0, 1000), st.integers(1, 2), st.integers(1, 5), st.booleans())
def test_positions_are_a_table_of_low_rank(seed, batch, tokens, padded):
    """DePT, arXiv:2309.05173: row A[t] B for the t-th token, nothing beyond the table."""
    at = torch.arange(tokens)[None]
    if padded:
        at = torch.stack([(at[0] - b).clamp_min(0) for b in range(batch)])
    module = built(
        {
            "placement": "outside",
            "site": "embeddings",
            "memory": {"kind": "positions", "length": 3, "rank": 2},
        },
        4,
        seed,
    )
    x, capture = stream(batch, tokens, 4, seed, at)
    parameters = {k.removeprefix("memory."): p for k, p in module.named_parameters()}
    rows = [module.spec.memory.naive(at[b % len(at)], parameters) for b in range(batch)]
    read, _ = module.read(capture)
    assert_same_with_gradients(read.n, torch.stack(rows)[:, None], {"x": x, **parameters})

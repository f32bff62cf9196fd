"""One query a row asks the kernel that sdpa would choose, and says bit for bit what transformers' own function says."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import ctxpeft
from ctxpeft.hosts import seam
from ctxpeft.hosts.fused import one_query
from ctxpeft.testing.tiny import perturb, tiny_model


def _module(repeat):
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = repeat, True
    return module


def _asked(batch=2, kv_heads=2, repeat=2, keys=5, width=4, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    heads = kv_heads * repeat
    q = torch.randn(batch, 1, heads, width, generator=g).transpose(1, 2).to(dtype)
    k, v = (torch.randn(batch, kv_heads, keys, width, generator=g).to(dtype) for _ in "kv")
    return q, k, v


@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    repeat=st.integers(1, 3),
    keys=st.integers(1, 70),
    width=st.sampled_from([1, 3, 8, 32]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    told=st.sampled_from([None, 0.3]),
)
@torch.no_grad()
def test_bit_for_bit(batch, kv_heads, repeat, keys, width, dtype, told):
    q, k, v = _asked(batch, kv_heads, repeat, keys, width, dtype)
    options = {"dropout": 0.0, "scaling": told}
    found = one_query(q, k, v, None, options)
    wanted, _ = sdpa_attention_forward(_module(repeat), q, k, v, None, **options)
    assert found is not None
    assert torch.equal(found, wanted)
    assert found.is_contiguous()


MASK = torch.ones(2, 1, 1, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("asked", "mask", "options"),
    [
        (_asked(), MASK, {}),
        (_asked(), None, {"dropout": 0.1}),
        (_asked(), None, {"softcap": 30.0}),
        (_asked(), None, {"position_bias": MASK.float()}),
        (_asked(), None, {"output_attentions": True}),
        (_asked(dtype=torch.float16), None, {}),
        ((_asked()[0].expand(-1, -1, 2, -1), *_asked()[1:]), None, {}),
        ((_asked()[0][:1], *_asked()[1:]), None, {}),
        ((_asked()[0][:, :3], *_asked()[1:]), None, {}),
        ((_asked()[0].double(), *_asked()[1:]), None, {}),
        ((_asked()[0], _asked()[1].mT.contiguous().mT, _asked()[2]), None, {}),
        ((*_asked()[:2], _asked(width=3)[2]), None, {}),
        ((_asked()[0], *(t[:, :, :0] for t in _asked()[1:])), None, {}),
    ],
    ids=lambda value: None,
)
def test_what_needs_the_way_there(asked, mask, options):
    assert one_query(*asked, mask, options) is None


def test_a_choice_of_kernels_is_heard():
    with sdpa_kernel(SDPBackend.MATH):
        assert one_query(*_asked(), None, {}) is None
    assert one_query(*_asked(), None, {}) is not None


@pytest.mark.parametrize("variant", ["prefix-tuning-plus", "prefix-tuning-plus-gated", "llama-adapter"])
def test_a_decoded_token_goes_this_way(variant):
    """A prompt, a padded batch and a pass with gradients go by transformers' own function; all say the same."""
    model = tiny_model("llama")
    handle = ctxpeft.attach(model, variant)
    perturb(handle)
    ids = torch.tensor([[5, 9, 11, 4]])
    own = seam.sdpa_attention_forward
    with patch.object(seam, "sdpa_attention_forward", side_effect=own) as asked, torch.no_grad():
        cache = model(ids[:, :-1]).past_key_values
        layers = asked.call_count
        assert layers == len(model.model.layers)
        found = model(ids[:, -1:], past_key_values=cache).logits[:, -1]
        assert asked.call_count == layers
        cache = model(ids[:, :-1]).past_key_values
        padded = torch.tensor([[0, 1, 1, 1]])
        model(ids[:, -1:], past_key_values=cache, attention_mask=padded)
        assert asked.call_count == 3 * layers
        wanted = model(ids).logits[:, -1]
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("variant", ["prefix-tuning-plus", "llama-adapter"])
def test_another_function_for_sdpa_is_heard(variant):
    """Between two tokens too."""
    model = tiny_model("llama")
    perturb(ctxpeft.attach(model, variant))
    ids = torch.tensor([[5, 9, 11, 4]])
    heard = []

    def theirs(*args, **options):
        heard.append(args[1].shape[2])
        return sdpa_attention_forward(*args, **options)

    with torch.no_grad():
        cache = model(ids[:, :-1]).past_key_values
        model(ids[:, -1:], past_key_values=cache)
        with patch.dict(ALL_ATTENTION_FUNCTIONS._global_mapping, {"sdpa": theirs}):
            model(ids[:, -1:], past_key_values=cache)
        model(ids[:, -1:], past_key_values=cache)
    assert heard == [1] * len(model.model.layers)

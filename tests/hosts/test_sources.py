"""What the seam captures is what the model computes: queries before RoPE, hidden states, frozen projections."""

import pytest
import torch

import ctxpeft
from ctxpeft.hosts.discover import discover
from ctxpeft.testing.tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_unrotated_is_rotated_at_position_zero(family):
    """RoPE is the identity at position 0: there the two query sources agree; elsewhere they differ."""
    model = tiny_model(family)
    seen = {}

    def variant(source):
        return {
            "name": source,
            "modules": [
                {
                    "placement": "outside",
                    "query": {"source": source},
                    "feature_map": {"kind": "identity"},
                    "memory": {"kind": "matrix"},
                    "scope": {"layers": [0]},
                }
            ],
        }

    ids = torch.randint(3, 61, (2, 6), generator=torch.Generator().manual_seed(0))
    for source in ("rotated", "unrotated"):
        handle = ctxpeft.attach(model, variant(source), seed=0)
        for parameter in handle.parameters():
            parameter.data.copy_(torch.eye(parameter.shape[-1]).expand_as(parameter))
        seen[source] = model(ids).logits
        handle.detach()
    assert torch.allclose(seen["rotated"][:, 0], seen["unrotated"][:, 0], atol=1e-4)
    if family != "gpt2":
        assert not torch.allclose(seen["rotated"][:, 1:], seen["unrotated"][:, 1:], atol=1e-3)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_frozen_projections_are_the_models_own(family):
    """LLaMA-Adapter's K and V of a hidden state equal the model's own key (before RoPE: at position 0) and value."""
    from transformers import DynamicCache

    model = tiny_model(family)
    cache = DynamicCache()
    hidden = {}
    layer = discover(model)[0]
    hook = layer.attention.register_forward_pre_hook(
        lambda m, args, kwargs: hidden.update(x=kwargs.get("hidden_states", args[0] if args else None)),
        with_kwargs=True,
    )
    model(torch.tensor([[5]]), past_key_values=cache)
    hook.remove()
    key, value = layer.project_kv(hidden["x"][0])
    assert torch.allclose(key, cache.layers[0].keys[0], atol=1e-5)
    assert torch.allclose(value, cache.layers[0].values[0], atol=1e-5)

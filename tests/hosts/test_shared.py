"""`per: model`: one set of parameters for all layers, owned by the model and counted once."""

import copy

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts.count import count_parameters
from ctxpeft.testing.tiny import perturb, tiny_model

MATRIX = {
    "name": "shared",
    "modules": [
        {
            "placement": "outside",
            "feature_map": {"kind": "projection", "width": 5},
            "phi_per": "model",
            "memory": {"kind": "matrix", "per": "model"},
        }
    ],
}
IDS = torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(1))


def per_layer(variant):
    module = variant["modules"][0]
    return {
        "name": "tied",
        "modules": [{**module, "phi_per": "layer", "memory": {**module["memory"], "per": "layer"}}],
    }


def test_equals_equal_copies_in_every_layer():
    """Values, and the gradient: that of the shared set is the sum over the layers."""
    model = tiny_model()
    handle = ctxpeft.attach(model, MATRIX, seed=0)
    perturb(handle)
    out = model(IDS, labels=IDS)
    out.loss.backward()
    shared = dict(handle.named_parameters())
    assert sorted(shared) == [
        "shared.0.feature_map.bias",
        "shared.0.feature_map.weight",
        "shared.0.memory.matrix",
    ]
    handle.detach()
    copies = ctxpeft.attach(model, per_layer(MATRIX), seed=0)
    for key, parameter in copies.named_parameters():
        parameter.data.copy_(shared[f"shared.0.{key.split('.', 3)[3]}"])
    tied = model(IDS, labels=IDS)
    tied.loss.backward()
    assert torch.allclose(tied.logits, out.logits, atol=1e-6)
    parameters = dict(copies.named_parameters())
    for key, parameter in shared.items():
        part = key.removeprefix("shared.0.")
        total = sum(parameters[f"layers.{layer}.0.{part}"].grad for layer in range(2))
        assert torch.allclose(parameter.grad, total, atol=1e-6)


def test_counted_saved_and_copied_once(tmp_path):
    model = tiny_model()
    handle = ctxpeft.attach(model, MATRIX, seed=0)
    one = 8 * 5 + 5 + 5 * 8
    assert handle.num_parameters() == one == sum(p.numel() for p in model.parameters() if p.requires_grad)
    bare = tiny_model()
    assert count_parameters(bare, handle.variant) == one
    perturb(handle)
    out = model(IDS).logits
    handle.save(tmp_path)
    other = tiny_model()
    loaded = ctxpeft.load(other, tmp_path)
    assert torch.equal(other(IDS).logits, out)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(IDS).logits, out)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.zero_()
    assert torch.equal(twin(IDS).logits, out), "the copy must not look at the original's parameters"
    loaded.detach()
    assert "ctxpeft" not in dict(other.named_children())


def test_stays_in_fp32_in_a_lowered_host():
    model = tiny_model()
    handle = ctxpeft.attach(model, MATRIX, seed=0)
    model.to(torch.bfloat16)
    assert {p.dtype for p in handle.parameters()} == {torch.float32}


def test_layers_of_unequal_shape_are_refused():
    model = tiny_model("gpt2")
    layer = model.transformer.h[1].attn
    layer.head_dim, layer.split_size = 4, 16
    layer.c_attn, layer.c_proj = Conv1D(48, 32), Conv1D(32, 16)
    with pytest.raises(HostError, match=r"modules\[0\].*shared by the whole model.*\(1, 5, 8\).*\(1, 5, 4\)"):
        ctxpeft.attach(model, MATRIX)
    assert "_ctxpeft_root" not in model.__dict__

"""Feature maps with saved buffers on a real model: drawn by the seed, saved, loaded, shared as the module says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ctxpeft
from ctxpeft.hosts.count import count_parameters
from ctxpeft.testing.tiny import perturb, tiny_model

IDS = torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(1))
MATRIX = {"kind": "matrix"}
KERNEL = {"kind": "slots", "count": 3, "score": "kernel", "per": "kv_head"}
FAVOR = {"kind": "favor_plus", "width": 12}
FOURIER = {"kind": "random_fourier", "width": 12}
MODULES: dict[str, dict[str, Any]] = {
    "favor-matrix": {"placement": "inside", "feature_map": FAVOR, "memory": MATRIX},
    "favor-slots": {"placement": "inside", "feature_map": FAVOR, "memory": KERNEL},
    "fourier-matrix": {"placement": "outside", "feature_map": FOURIER, "memory": MATRIX},
    "film-of-favor-slots": {
        "placement": "outside",
        "feature_map": {"kind": "film", "base": FAVOR},
        "phi_per": "kv_head",
        "memory": KERNEL,
    },
}


def variant(name: str) -> dict[str, Any]:
    return {"name": name, "modules": [MODULES[name]]}


@pytest.mark.parametrize("name", list(MODULES))
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    """The loaded adapter computes the same, although its own draw was another."""
    model = tiny_model()
    handle = ctxpeft.attach(model, variant(name), seed=1)
    perturb(handle)
    buffers = {key: t for key, t in handle.state_dict().items() if key not in dict(handle.named_parameters())}
    assert buffers
    assert all(key.split(".")[-1] in ("projection", "frequency", "phase") for key in buffers)
    expected = model(IDS).logits
    handle.save(tmp_path)
    torch.manual_seed(99)
    loaded = ctxpeft.load(again := tiny_model(), tmp_path)
    assert torch.equal(again(IDS).logits, expected)
    state = loaded.state_dict()
    assert all(torch.equal(state[key], t) for key, t in buffers.items())


@pytest.mark.parametrize("name", list(MODULES))
def test_the_seed_draws_the_map(name: str) -> None:
    """attach(seed=) decides the buffers, whatever the global state, and each layer draws its own."""
    states = []
    for seed, global_seed in ((5, 0), (5, 1), (6, 0)):
        torch.manual_seed(global_seed)
        states.append(ctxpeft.attach(tiny_model(), variant(name), seed=seed).state_dict())
    drawn = [key for key in states[0] if key.split(".")[-1] in ("projection", "frequency", "phase")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in drawn)
    assert not any(torch.equal(states[0][key], states[2][key]) for key in drawn)
    first, second = (next(states[0][k] for k in drawn if k.startswith(f"layers.{i}.")) for i in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", list(MODULES))
def test_counted_without_a_draw(name: str) -> None:
    """The count on the meta device equals the parameters; buffers are none."""
    model = tiny_model()
    predicted = count_parameters(model, ctxpeft.load_variant(variant(name)))
    random_state = torch.get_rng_state()
    handle = ctxpeft.attach(model, variant(name), seed=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert predicted == handle.num_parameters() == sum(p.numel() for p in handle.parameters())


def test_one_draw_for_all_layers(tmp_path: Path) -> None:
    """Under phi_per: model a random map is drawn, held and saved once, and every layer reads through it."""
    module = {**MODULES["favor-matrix"], "phi_per": "model", "memory": {"kind": "matrix", "per": "model"}}
    model = tiny_model()
    handle = ctxpeft.attach(model, {"name": "shared", "modules": [module]}, seed=1)
    drawn = [key for key in handle.state_dict() if key.endswith("projection")]
    assert drawn == ["shared.0.feature_map.projection"]
    maps = {id(built.module.feature_map) for built in handle.built}
    assert len(maps) == 1
    perturb(handle)
    expected = model(IDS).logits
    handle.save(tmp_path)
    ctxpeft.load(again := tiny_model(), tmp_path)
    assert torch.equal(again(IDS).logits, expected)


def test_training_leaves_the_map() -> None:
    """A step of the optimizer moves the memory and not the random map."""
    model = tiny_model().train()
    handle = ctxpeft.attach(model, variant("favor-matrix"), seed=0)
    before = {key: t.clone() for key, t in handle.state_dict().items()}
    optimizer = torch.optim.SGD(handle.parameters(), lr=1.0)
    model(IDS, labels=IDS).loss.backward()
    optimizer.step()
    for key, tensor in handle.state_dict().items():
        assert torch.equal(tensor, before[key]) == key.endswith("projection")


@pytest.mark.parametrize("name", ["favor-slots", "film-of-favor-slots"])
def test_queries_and_keys_go_through_one_map(name: str) -> None:
    """One draw a layer serves the queries of all heads and the keys of all slots: phi(q).phi(k) is a kernel."""
    handle = ctxpeft.attach(tiny_model(), variant(name), seed=0)
    for module in (built.module for built in handle.built):
        (projection,) = (t for key, t in module.state_dict().items() if key.endswith("projection"))
        assert projection.shape == (1, 12, 8)
        key = module.memory.slots.key.detach()
        query = torch.randn(2, 4, 5, 8)
        phi_q = module.phi_grouping.unfold(module.feature_map(module.phi_grouping.fold(query)), 5)
        score = torch.einsum("bgnw,gpw->bgnp", module.grouping.fold(phi_q), module.feature_map(key))
        half = score.shape[2] // 2
        y, w = query * 8**-0.25, projection[0]
        z = key * 8**-0.25
        for head in range(4):
            q_features = torch.exp(y[:, head] @ w.T - y[:, head].square().sum(-1, keepdim=True) / 2)
            k_features = torch.exp(z[head // 2] @ w.T - z[head // 2].square().sum(-1, keepdim=True) / 2)
            expected = q_features @ k_features.T / 12
            found = score[:, head // 2, (head % 2) * half : (head % 2 + 1) * half]
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)

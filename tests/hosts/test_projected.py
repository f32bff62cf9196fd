"""What the heads read, added behind the output projection instead of before it: `projected: false`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts.discover import discover
from ctxpeft.testing.tiny import FAMILIES, perturb, tiny_model

IDS = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(1))
PADDED = torch.ones_like(IDS)
PADDED[0, :4] = 0
FITTING = sorted(set(FAMILIES) - {"qwen3"})
SLOTS = {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 0.7}}
MODULES: list[dict[str, Any]] = [
    {"memory": {**SLOTS, "parameterization": {"kind": "frozen_projection"}}, "gate": {"kind": "scalar"}},
    {"memory": SLOTS, "scope": {"heads": [1, 3], "tokens": "generated"}},
    {
        "query": {"source": "unrotated"},
        "feature_map": {"kind": "elu"},
        "memory": {"kind": "matrix"},
        "gate": {"kind": "token", "source": "log_mass"},
        "scope": {"layers": {"last": 1}},
    },
    {"memory": {"kind": "vector"}, "gate": {"kind": "token", "source": "output"}},
]
BESIDE = [
    {"placement": "inside", "memory": SLOTS},
    {
        "placement": "outside",
        "site": "attention_output",
        "query": {"source": "output"},
        "feature_map": {"kind": "tanh"},
        "memory": {"kind": "matrix"},
    },
]


def variant(projected: bool, modules: list[dict[str, Any]] = MODULES) -> dict[str, Any]:
    given = [{"placement": "outside", **module, "projected": projected} for module in modules]
    return {"name": f"projected-{projected}".lower(), "modules": [*given, *BESIDE]}


def with_identity_projections(family: str) -> Any:
    """A model whose output projections hand on the heads as they are, biases aside."""
    model = tiny_model(family)
    for layer in discover(model):
        projection: Any = layer.output_projection()
        nn.init.eye_(projection.weight)
    return model


def answers(model: Any, data: dict[str, Any]) -> list[Tensor]:
    """Logits with and without padding, gradients, and greedy tokens; the model is left as it was."""
    handle = ctxpeft.attach(model, data, seed=0)
    perturb(handle)
    generated = torch.arange(IDS.shape[1]).expand_as(IDS) > 4
    found = []
    with ctxpeft.segments(model, generated):
        for mask in (torch.ones_like(IDS), PADDED):
            out = model(IDS, attention_mask=mask, labels=IDS.masked_fill(mask == 0, -100))
            found.append(out.logits[mask.bool()])
    out.loss.backward()
    found += [parameter.grad for parameter in handle.parameters()]
    found.append(
        model.generate(IDS, attention_mask=PADDED, max_new_tokens=5, do_sample=False, disable_compile=True)
    )
    handle.detach()
    return found


@pytest.mark.parametrize("family", FITTING)
def test_an_identity_projection_makes_no_difference(family: str) -> None:
    """W_O o + g r = W_O (o + g r) where W_O = 1, and nowhere else."""
    model = with_identity_projections(family)
    for past, through in zip(answers(model, variant(False)), answers(model, variant(True)), strict=True):
        assert torch.allclose(past, through, atol=1e-4, rtol=1e-4)
    other = tiny_model(family)
    past, through = (answers(other, variant(projected))[0] for projected in (False, True))
    assert float((past - through).detach().abs().max()) > 0.1


def test_heads_that_do_not_fill_the_hidden_state() -> None:
    model = tiny_model("qwen3")
    with pytest.raises(
        HostError, match="4 heads of width 12: side by side they do not fill a hidden state of 32"
    ):
        ctxpeft.attach(model, variant(False))
    assert "_ctxpeft" not in vars(model)


def test_rows_and_recomputation() -> None:
    """Routed rows, the base in the block that disables, and gradient checkpointing see it as they see the others."""
    model = tiny_model("gpt2")
    base = model(IDS).logits
    handle = ctxpeft.attach(model, {"name": "v", "modules": variant(False)["modules"][:1]}, seed=0)
    perturb(handle)
    adapted = model(IDS).logits
    with ctxpeft.route(model, ["default", None]):
        routed = model(IDS).logits
    assert torch.allclose(routed[0], adapted[0], atol=1e-5)
    assert torch.allclose(routed[1], base[1], atol=1e-5)
    assert float((adapted - base).detach().abs().max()) > 0.1
    with handle.disabled():
        assert torch.equal(model(IDS).logits, base)
    grads = []
    for checkpointed in (False, True):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointed:
            model.gradient_checkpointing_enable()
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        grads.append([p.grad.clone() for p in handle.parameters()])
        for parameter in handle.parameters():
            parameter.grad = None
    assert all(torch.allclose(a, b, atol=1e-6, rtol=1e-4) for a, b in zip(*grads, strict=True))

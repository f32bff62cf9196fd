"""A query at which a positive map is zero has no features and no mass: it reads nothing, and no gradient breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import compose
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.heads import Heads

MATRIX = {"kind": "matrix", "init": {"kind": "normal", "std": 1.0}}
SLOTS = {"kind": "slots", "count": 3, "score": "kernel", "init": {"kind": "normal", "std": 1.0}}
NEGATIVE, ZERO, FAR, ONE_COORDINATE = (
    torch.tensor(row) for row in ([-1.0, -2, -3, -4], [0.0] * 4, [200.0] * 4, [2.0, 0, 0, 0])
)
VANISHING = {
    "relu": ({"kind": "relu"}, NEGATIVE),
    "relu-at-zero": ({"kind": "relu"}, ZERO),
    "squared_relu": ({"kind": "squared_relu"}, NEGATIVE),
    "square": ({"kind": "square"}, ZERO),
    "dpfp": ({"kind": "dpfp"}, ONE_COORDINATE),
    "favor_plus": ({"kind": "favor_plus", "width": 6}, FAR),
    "projection": ({"kind": "projection", "activation": "relu", "width": 6, "bias": False}, ZERO),
}
MODULES = {
    "matrix": {"placement": "outside", "memory": MATRIX, "normalizer": "sum"},
    "slots": {"placement": "outside", "memory": SLOTS, "normalizer": "sum", "phi_per": "kv_head"},
    "mix": {
        "placement": "outside",
        "merge": "mix",
        "memory": MATRIX,
        "normalizer": "sum",
        "gate": {"kind": "token"},
    },
    "inside": {"placement": "inside", "memory": MATRIX},
}


def problem(
    feature_map: dict[str, Any], row: Tensor, module: dict[str, Any], dtype: torch.dtype, blind: bool = False
) -> tuple[ContextModule, Capture]:
    """The second of four tokens asks with `row`; a blind one sees no content either (L = -inf)."""
    heads = Heads.random(0, 2, 2, 2, 4, 4, 3, "causal")
    capture = heads.capture()
    query = heads.query.detach().to(dtype)
    query[:, :, 1] = row.to(dtype)
    output, mass = capture.output.detach().to(dtype), heads.content()[1].detach().to(dtype)
    if blind:
        output[:, :, 1], mass[:, :, 1] = 0.0, -torch.inf
    torch.manual_seed(0)
    spec = ModuleSpec.model_validate({**module, "feature_map": feature_map})
    built = ContextModule(spec, replace(heads.shape(), dtype=dtype))
    leaves = output.requires_grad_(), query.requires_grad_(), mass.requires_grad_()
    return built, Capture(output=leaves[0], rotated=leaves[1], log_mass=lambda: leaves[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(VANISHING))
@pytest.mark.parametrize("form", list(MODULES))
def test_it_reads_nothing(name: str, form: str, dtype: torch.dtype) -> None:
    """Values: r = 0 outside, o as it was inside; every gradient is finite."""
    built, capture = problem(*VANISHING[name], MODULES[form], dtype)
    before = capture.output[:, :, 1].detach()
    out, kept = compose(capture, [(built, None)])
    gate = 0.0
    if form == "mix":
        gate = built.gate(capture, built.query(capture))[:, :, 1]
    assert torch.equal(out[:, :, 1], before - gate * before)
    if kept is not None:
        assert torch.equal(kept[:, :, 1], torch.ones_like(kept[:, :, 1]))
    (1e6 * out).sum().backward()
    assert capture.rotated is not None
    assert capture.rotated.grad is not None
    assert bool(torch.isfinite(capture.rotated.grad).all())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in built.parameters())


@pytest.mark.parametrize("name", list(VANISHING))
def test_it_teaches_nothing(name: str) -> None:
    """Parameters get the gradient of the other queries alone."""
    built, capture = problem(*VANISHING[name], MODULES["matrix"], torch.float64)
    found = torch.autograd.grad(compose(capture, [(built, None)])[0].square().sum(), list(built.parameters()))
    out = compose(capture, [(built, None)])[0]
    others = out[:, :, [0, 2, 3]].square().sum()
    for one, two in zip(found, torch.autograd.grad(others, list(built.parameters())), strict=True):
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(VANISHING))
def test_a_query_that_sees_nothing_at_all(name: str, dtype: torch.dtype) -> None:
    """No content, no features: o stays, with finite gradients."""
    built, capture = problem(*VANISHING[name], MODULES["inside"], dtype, blind=True)
    out, _ = compose(capture, [(built, None)])
    assert torch.equal(out[:, :, 1], capture.output[:, :, 1])
    (1e6 * out).sum().backward()
    assert capture.rotated is not None
    for tensor in (capture.rotated, *built.parameters()):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())


@pytest.mark.parametrize("kind", ["taylor", "rebased"])
def test_what_rounding_leaves_below_zero(kind: str) -> None:
    """A kernel that is positive as a sum of signed products is no less in single precision: a mass stays a mass."""
    heads = Heads.random(0, 1, kv_heads=4, repeat=1, tokens=1, width=8, value_width=3, mask="causal")
    module = {
        "placement": "inside",
        "phi_per": "query_head",
        "feature_map": {"kind": kind, "width": None},
        "memory": {**SLOTS, "count": 1, "per": "query_head", "init": {"kind": "normal", "std": 100.0}},
    }
    torch.manual_seed(0)
    built = ContextModule(ModuleSpec.model_validate(module), replace(heads.shape(), dtype=torch.float32))
    query = 100 * torch.randn(1, 4, 2**14, 8)
    read, _ = built.read(Capture(output=query, rotated=query))
    phi: Any = built.feature_map
    slots: Any = built.memory.slots
    kernel = phi(query) @ phi(slots.key).transpose(1, 2)
    assert read.m is not None
    assert float(kernel.detach().min()) < 0
    assert float(read.m.detach().min()) == 0

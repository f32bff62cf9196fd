"""What the laws of the algebra share: usual slots, modules of every merge, source and gate, comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads

Spec = dict[str, Any]
EXACT = 1e-12

SLOTS: Spec = {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 1.0}}
ELU: Spec = {"kind": "elu"}
ELU1: Spec = {"kind": "elu_plus_one"}
MATRIX: Spec = {"kind": "matrix"}

INSIDE: tuple[Spec, ...] = (
    {"placement": "inside", "memory": SLOTS},
    {"placement": "inside", "memory": {**SLOTS, "per": "query_head"}, "query": {"source": "unrotated"}},
    {
        "placement": "inside",
        "merge": "compete_length",
        "length_bias": -1.0,
        "memory": SLOTS,
        "gate": {"kind": "token", "source": "log_mass", "on": "mass"},
    },
    {"placement": "inside", "memory": SLOTS, "gate": {"kind": "scalar"}},
    {
        "placement": "inside",
        "feature_map": ELU1,
        "memory": MATRIX,
        "gate": {"kind": "token", "source": "hidden"},
    },
    {"placement": "inside", "feature_map": ELU1, "memory": {**SLOTS, "score": "kernel", "per": "layer"}},
    {"placement": "inside", "memory": {"kind": "vector", "log_mass": 0.5}},
)
ADDED: tuple[Spec, ...] = (
    {"placement": "outside", "feature_map": ELU, "memory": MATRIX},
    {"placement": "outside", "memory": SLOTS, "gate": {"kind": "scalar", "per": "channel"}},
    {"placement": "outside", "memory": {**SLOTS, "score": "relu"}, "gate": {"kind": "token"}},
    {
        "placement": "outside",
        "query": {"source": "output", "norm": "rms", "learned_temperature": True},
        "feature_map": {"kind": "hedgehog"},
        "memory": {"kind": "matrix", "form": "low_rank", "rank": 2},
        "gate": {"kind": "token", "source": "log_mass"},
    },
    {"placement": "outside", "memory": {"kind": "vector"}, "gate": {"kind": "token", "source": "output"}},
)
MIXED: tuple[Spec, ...] = (
    {
        "placement": "outside",
        "merge": "mix",
        "query": {"source": "hidden"},
        "feature_map": {"kind": "projection", "width": 4},
        "memory": {"kind": "matrix", "per": "layer"},
        "gate": {"kind": "token", "source": "hidden"},
    },
    {
        "placement": "outside",
        "merge": "mix",
        "feature_map": ELU1,
        "memory": {**SLOTS, "score": "kernel"},
        "normalizer": "sum",
        "gate": {"kind": "constant", "value": 0.3},
    },
    {
        "placement": "outside",
        "merge": "scale",
        "memory": {"kind": "none"},
        "gate": {"kind": "token", "source": "query", "activation": "linear", "init": 1.0},
    },
)
MODULES = (*INSIDE, *ADDED, *MIXED)
IDENTICAL: tuple[Spec, ...] = (
    {"placement": "outside", "feature_map": ELU, "memory": MATRIX},
    {"placement": "outside", "feature_map": ELU1, "memory": MATRIX, "normalizer": "sum"},
    {
        "placement": "outside",
        "feature_map": ELU,
        "memory": {"kind": "matrix", "form": "low_rank", "rank": 2},
        "gate": {"kind": "token", "source": "hidden"},
    },
    {"placement": "outside", "memory": SLOTS, "gate": {"kind": "scalar", "activation": "tanh"}},
    {"placement": "outside", "memory": {**SLOTS, "value_init": {"kind": "zeros"}}},
    {"placement": "outside", "memory": {"kind": "vector"}},
    {"placement": "inside", "memory": SLOTS, "gate": {"kind": "scalar", "activation": "tanh"}},
    {
        "placement": "inside",
        "feature_map": ELU1,
        "memory": MATRIX,
        "gate": {"kind": "token", "activation": "linear"},
    },
    {
        "placement": "outside",
        "merge": "scale",
        "memory": {"kind": "none"},
        "gate": {"kind": "scalar", "activation": "linear", "per": "channel", "init": 1.0},
    },
    {
        "placement": "outside",
        "merge": "scale",
        "memory": {"kind": "none"},
        "gate": {"kind": "scalar", "activation": "exp", "init": 0.0},
    },
)


def slots_of(module: ContextModule) -> tuple[Tensor, Tensor]:
    """K (G, P, d) and V (G, P, dv) of a module with free slots."""
    parameters = dict(module.named_parameters())
    return parameters["memory.slots.key"], parameters["memory.slots.value"]


def assert_equation(heads: Heads, module: ContextModule, expected: Tensor, **inputs: Tensor) -> None:
    """A module is the function `expected`: the value and the gradient of every input and parameter, on every way that
    serves it."""
    every = {**heads.inputs(), **dict(module.named_parameters()), **inputs}
    assert_same_with_gradients(heads.composed(module), expected, every)
    joined = heads.composed_jointly(module)
    if joined is not None:
        assert_same_with_gradients(joined, expected, every)


def assert_close(got: Tensor, want: Tensor, relative: float = EXACT) -> None:
    """Equal up to rounding, against the largest entry of `want` (at least 1)."""
    assert got.shape == want.shape, f"shapes {tuple(got.shape)} and {tuple(want.shape)}"
    if not want.numel():
        return
    scale = max(1.0, float(want.detach().abs().max()))
    error = float((got - want).detach().abs().max())
    assert error <= relative * scale, f"error {error:.3g} against a scale of {scale:.3g}"


def grouped(heads: Heads, per: str) -> list[int]:
    """The parameter set of each query head."""
    return heads.shape().group_of_heads(per)  # type: ignore[arg-type]


def softplus_inverse(x: Tensor) -> Tensor:
    """zeta with softplus(zeta) = x > 0."""
    return x + torch.log(-torch.expm1(-x))

"""The equation of a variant, as it is printed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from ctxpeft.spec.equation import module_equation, variant_equations
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.strategies import modules

SLOTS = {"kind": "slots"}
MATRIX = {"kind": "matrix"}
SLOT_MASS = "l = log Σⱼ exp(qᵀ kⱼ/√d)"


@pytest.mark.parametrize(
    ("name", "equation"),
    [
        ("prefix-tuning-plus", "o ← o + elu(q)ᵀ M"),
        ("prefix-tuning-plus-unrotated", "o ← o + elu(q̄)ᵀ M"),
        ("prefix-tuning", f"o ← (1 − ρ) o + ρ softmax(q Kᵀ/√d) V, ρ = σ(l − L), {SLOT_MASS}"),
        (
            "length-compensated",
            f"o ← (1 − ρ) o + ρ softmax(q Kᵀ/√d) V, ρ = σ(l + log n + b − L), {SLOT_MASS}, "
            "n = number of visible content keys",
        ),
        ("llama-adapter", "o ← o + g softmax(q Kᵀ/√d) V, g = tanh(a)"),
        (
            "ntk-attention",
            "o ← (e^L o + elu_plus_one(q')ᵀ M) / (e^L + elu_plus_one(q')ᵀ z), q' = q d^(−1/4)",
        ),
        ("construction-1-moved-out", "o ← 0.9 o + 0.1 softmax(q Kᵀ/√d) V"),
        ("construction-3-free-matrix", "o ← 0.9 o + 0.1 (elu_plus_one(q)ᵀ M) / (elu_plus_one(q)ᵀ z)"),
        ("gated-sdpa", "o ← g o, g = wᵀx + c"),
        ("parallel-adapter-ffn", "o ← o + gelu(x W + c)ᵀ M   [beside the FFN]"),
        ("lora-qv", "W ← W + (α/r) B A   [q_proj, v_proj]"),
    ],
)
def test_shipped(name: str, equation: str) -> None:
    assert variant_equations(load_variant(name)) == [equation]


@pytest.mark.parametrize(
    ("module", "equation"),
    [
        (
            {"placement": "inside", "memory": SLOTS, "gate": {"kind": "scalar"}},
            f"o ← (1 − ρ) o + ρ softmax(q Kᵀ/√d) V, ρ = g σ(l − L), {SLOT_MASS}, g = tanh(a)",
        ),
        (
            {
                "placement": "inside",
                "memory": SLOTS,
                "gate": {"kind": "scalar", "on": "mass", "activation": "exp"},
            },
            f"o ← (1 − ρ) o + ρ softmax(q Kᵀ/√d) V, ρ = σ(l + log g − L), {SLOT_MASS}, g = exp(a)",
        ),
        ({"placement": "inside", "memory": {"kind": "vector"}}, "o ← (1 − ρ) o + ρ b, ρ = σ(l − L), l = ζ"),
        ({"placement": "outside", "memory": {"kind": "vector"}}, "o ← o + b"),
        (
            {"placement": "outside", "memory": SLOTS, "gate": {"kind": "scalar"}, "projected": False},
            "y ← y + g softmax(q Kᵀ/√d) V, g = tanh(a)   [behind the output projection]",
        ),
        ({"placement": "outside", "memory": {"kind": "slots", "score": "relu"}}, "o ← o + relu(q Kᵀ/√d) V"),
        (
            {
                "placement": "outside",
                "memory": {"kind": "matrix", "form": "low_rank", "rank": 2},
                "feature_map": {"kind": "identity"},
                "query": {"norm": "l2", "learned_temperature": True},
                "scope": {"layers": {"last": 2}, "heads": [0, 1]},
            },
            "o ← o + q'ᵀ A B, q' = q/‖q‖ / τ   [last 2 layers, heads 0, 1]",
        ),
        (
            {"placement": "outside", "memory": {"kind": "vector"}, "scope": {"layers": {"last": 0.5}}},
            "o ← o + b   [last 50% of the layers]",
        ),
        (
            {
                "placement": "outside",
                "merge": "scale",
                "memory": {"kind": "none"},
                "gate": {"kind": "scalar", "per": "channel", "activation": "linear", "init": 1},
            },
            "o ← g ⊙ o, g = a",
        ),
        (
            {
                "placement": "outside",
                "merge": "mix",
                "memory": MATRIX,
                "feature_map": {"kind": "relu"},
                "normalizer": "sum",
                "gate": {"kind": "token", "source": "log_mass"},
            },
            "o ← (1 − g) o + g (relu(q)ᵀ M) / (relu(q)ᵀ z), g = σ(wᵀL + c)",
        ),
        (
            {
                "placement": "outside",
                "memory": {"kind": "slots", "score": "kernel"},
                "feature_map": {"kind": "exp"},
                "normalizer": "sum",
            },
            "o ← o + (exp(q − max q)ᵀ exp(K − max K)ᵀ V) / (Σⱼ exp(q − max q)ᵀ exp(kⱼ − max kⱼ))",
        ),
    ],
)
def test_modules(module: dict[str, Any], equation: str) -> None:
    assert module_equation(ModuleSpec.model_validate(module)) == equation


@pytest.mark.parametrize(
    ("feature_map", "phi"),
    [
        ({"kind": "one"}, "1"),
        ({"kind": "identity"}, "q"),
        ({"kind": "squared_relu"}, "squared_relu(q)"),
        ({"kind": "softmax"}, "softmax(q)"),
        ({"kind": "softmax", "both": True}, "[softmax(q), softmax(−q)]"),
        ({"kind": "favor_plus"}, "favor_plus(q)"),
        ({"kind": "projection", "bias": False, "activation": "relu"}, "relu(q W)"),
        ({"kind": "hadamard"}, "(q W₁ ⊙ q W₂)"),
        ({"kind": "all_poly"}, "((q W₁)² + q² W₂)/√2"),
        ({"kind": "outer"}, "triu(q W₁ ⊗ q W₂)"),
        ({"kind": "taylor"}, "taylor(q W)"),
        ({"kind": "taylor", "width": None}, "taylor(q)"),
        ({"kind": "film", "base": {"kind": "gelu"}}, "(γ ⊙ gelu(q))"),
        ({"kind": "film", "base": {"kind": "projection"}}, "(γ ⊙ gelu(q W + c))"),
    ],
)
def test_feature_maps(feature_map: dict[str, Any], phi: str) -> None:
    """A map writes itself."""
    module = {"placement": "outside", "memory": MATRIX, "feature_map": feature_map}
    assert module_equation(ModuleSpec.model_validate(module)) == f"o ← o + {phi}ᵀ M"


@given(modules())
def test_every_legal_module_has_one(module: ModuleSpec) -> None:
    equation = module_equation(module)
    merged = {"residual": "h", "embeddings": "e"}.get(module.site, "o" if module.projected else "y")
    assert equation.startswith(f"{merged} ← ")
    assert "None" not in equation
    assert equation.count("(") == equation.count(")")

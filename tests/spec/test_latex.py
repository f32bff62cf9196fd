"""The notation of equations as LaTeX: every symbol keeps its meaning, and what is not understood is said to be."""

from __future__ import annotations

import pytest

from ctxpeft.shipped import shipped_names
from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.latex import NotationError, formula, split
from ctxpeft.spec.load import load_variant


@pytest.mark.parametrize(
    ("written", "latex"),
    [
        ("o ← o + elu(q)ᵀ M", r"o \leftarrow o + \operatorname{elu}\left( q \right)^{\top} \, M"),
        ("softmax(q Kᵀ/√d) V", r"\operatorname{softmax}\left( \frac{q \, K^{\top}}{\surd d} \right) \, V"),
        ("ρ (a + b) / (c)", r"\rho \, \frac{a + b}{c}"),
        ("(α/r) B A", r"\left( \frac{\alpha}{r} \right) \, B \, A"),
        ("Σⱼ exp(kⱼ)", r"\sum_{j} \, \operatorname{exp}\left( k_{j} \right)"),
        ("q d^(−1/4)", r"q \, d^{- 1 / 4}"),
        ("q' = rms(q̄)", r"q' = \operatorname{rms}\left( \bar{q} \right)"),
        ("‖q‖", r"\left\Vert q \right\Vert"),
        ("g ⊙ o", r"g \odot o"),
        ("F⁻¹(C)", r"F^{-1} \, \left( C \right)"),
        ("B₁ A₁", r"B_{1} \, A_{1}"),
        ("H₁ ⋯ H_r", r"H_{1} \cdots H_{r}"),
        ("elu_plus_one(q)", r"\text{elu_plus_one}\left( q \right)"),
        ("n = number of visible content keys", r"n = \text{number of visible content keys}"),
        ("0.9 o", r"0.9 \, o"),
    ],
)
def test_formulas(written: str, latex: str) -> None:
    assert formula(written) == latex


@pytest.mark.parametrize("name", shipped_names("variants"))
def test_every_shipped_equation_is_understood(name: str) -> None:
    for equation in variant_equations(load_variant(name)):
        for part in split(equation.partition("   [")[0]):
            assert formula(part)


@pytest.mark.parametrize(
    "text", ["elu(q", "a + ", "/ b", "a ? b", "a <b> c", "elu(q))", "some words {here}", ""]
)
def test_what_is_no_notation_is_refused(text: str) -> None:
    with pytest.raises(NotationError):
        formula(text)


def test_parts_are_split_outside_brackets() -> None:
    assert split("a ← f(b, c), b = [1, 2], c = d") == ["a ← f(b, c)", "b = [1, 2]", "c = d"]

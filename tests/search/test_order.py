"""Designs that differ in the order of their modules alone are one, where that order changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ctxpeft
from ctxpeft.search.design import sample, variant_of
from ctxpeft.search.order import settled
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.search.spacefile import load_space
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.variant import Variant

MATRIX: dict[str, Any] = {
    "placement": "outside",
    "feature_map": {"kind": "elu"},
    "memory": {"kind": "matrix"},
    "query": {"source": "output"},
}
SLOTS: dict[str, Any] = {"placement": "outside", "memory": {"kind": "slots", "count": 3}}
SCALE: dict[str, Any] = {
    "placement": "outside",
    "merge": "scale",
    "memory": {"kind": "none"},
    "gate": {"kind": "scalar", "activation": "linear", "per": "channel", "init": 1.0},
}
PREFIX: dict[str, Any] = {"placement": "inside", "memory": {"kind": "slots", "count": 2}}
FFN = {"site": "ffn", "query": {"source": "hidden"}}
ONE = [
    (MATRIX, SLOTS),
    (MATRIX | FFN, SLOTS),
    (SCALE | {"site": "ffn"}, MATRIX),
    (PREFIX, MATRIX),
    (PREFIX, SCALE),
]
TWO = [
    (MATRIX, SCALE),
    (MATRIX, SLOTS | {"merge": "mix", "gate": {"kind": "scalar"}}),
    (PREFIX, PREFIX | {"merge": "compete_length"}),
]


def settled_variant(modules: tuple[dict[str, Any], ...]) -> Variant:
    order = settled([ModuleSpec.model_validate(module) for module in modules])
    return variant_of([modules[place] for place in order])


@pytest.mark.parametrize("pair", ONE)
def test_one_design_whichever_comes_first(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert settled_variant(pair).fingerprint() == settled_variant(pair[::-1]).fingerprint()
    assert variant_of([*pair]).fingerprint() != variant_of([*pair[::-1]]).fingerprint(), (
        "the spec keeps orders apart"
    )


@pytest.mark.parametrize("pair", TWO)
def test_two_designs_where_the_order_counts(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert settled_variant(pair).fingerprint() != settled_variant(pair[::-1]).fingerprint()


def test_what_stands_between_two_modules_keeps_them_apart() -> None:
    """Matrix and slots may change places, but neither goes past the scale that stands between them."""
    orders = [(MATRIX, SCALE, SLOTS), (SLOTS, SCALE, MATRIX), (MATRIX, SLOTS, SCALE), (SLOTS, MATRIX, SCALE)]
    prints = [settled_variant(order).fingerprint() for order in orders]
    assert len(set(prints)) == 3
    assert prints[2] == prints[3]


def logits(variant: Variant, places: list[int]) -> torch.Tensor:
    """Of a model with the variant's modules filled at random, alike for the same module; `places`: which is which."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval()
    handle = ctxpeft.attach(model, variant, seed=0)
    for _, index, layer, module in handle.built:
        generator = torch.Generator().manual_seed(100 * places[index] + (-1 if layer is None else layer) + 1)
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.data = (
                    torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor) * 0.3
                )
    with torch.no_grad():
        return model(torch.arange(2, 26).view(2, 12)).logits


@pytest.mark.parametrize("pair", ONE)
def test_the_model_says_the_same_in_either_order(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, other = logits(variant_of([*pair]), [0, 1]), logits(variant_of([*pair[::-1]]), [1, 0])
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_check_can_tell_an_order_that_counts() -> None:
    pair = TWO[0]
    one, other = logits(variant_of([*pair]), [0, 1]), logits(variant_of([*pair[::-1]]), [1, 0])
    assert not torch.allclose(one, other, rtol=1e-2)


def test_pairs_of_a_space_are_drawn_as_one_design() -> None:
    """In a space with two places for the same templates a design has the order that `settled` gives."""
    space, several = load_space("full-equation"), 0
    for seed in range(80):
        try:
            design = sample(space.positions, RandomChooser(seed), lambda variant: 1, None)
        except InfeasibleError:
            continue
        modules = design.variant.modules
        assert settled(modules) == list(range(len(modules)))
        assert len(design.templates) == len(modules)
        several += len(modules) > 1
    assert several > 20

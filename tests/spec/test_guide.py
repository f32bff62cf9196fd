"""Every rule of the guide speaks when it should, and what it calls dead is dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ctxpeft
from ctxpeft.shipped import shipped_names
from ctxpeft.spec.guide import RULES, Facts, advice
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.tiny import tiny_model

SLOTS = {"kind": "slots", "count": 4}
UNIT = {**SLOTS, "init": {"kind": "normal", "std": 1.0}, "value_init": {"kind": "zeros"}}
MATRIX = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}
TANH = {"kind": "scalar", "activation": "tanh", "init": 0.0}
INSIDE = {"placement": "inside", "memory": UNIT}
NORMAL = {"kind": "matrix", "init": {"kind": "normal"}}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alive-at-init": ({**MATRIX, "gate": TANH}, {**MATRIX, "memory": NORMAL, "gate": TANH}),
    "gate-that-stays-shut": (
        {**MATRIX, "memory": NORMAL, "gate": {"kind": "constant", "value": 0.0}},
        {**MATRIX, "gate": {"kind": "constant", "value": 0.5}},
    ),
    "relu-keys-off-zero": (
        {"placement": "outside", "memory": {**SLOTS, "score": "relu", "init": {"kind": "zeros"}}},
        {"placement": "outside", "memory": {**UNIT, "score": "relu"}},
    ),
    "identity-at-init": ({**MATRIX, "memory": NORMAL}, MATRIX),
    "keys-of-unit-scale": ({"placement": "inside", "memory": SLOTS}, INSIDE),
    "quiet-values-inside": ({"placement": "inside", "memory": SLOTS}, INSIDE),
    "normalise-before-quadratic": (
        {**MATRIX, "feature_map": {"kind": "squared_relu"}},
        {**MATRIX, "feature_map": {"kind": "squared_relu"}, "query": {"norm": "rms"}},
    ),
    "no-normaliser-outside": (
        {**MATRIX, "feature_map": {"kind": "elu_plus_one"}, "normalizer": "sum"},
        {**MATRIX, "feature_map": {"kind": "elu_plus_one"}},
    ),
    "long-inputs-dilute": (INSIDE, {**INSIDE, "merge": "compete_length"}),
    "share-when-data-are-few": (MATRIX, {**MATRIX, "memory": {"kind": "matrix", "per": "kv_head"}}),
    "position-free-read": (MATRIX, {**MATRIX, "query": {"source": "unrotated"}}),
}
KNOWN = Facts(input_length=2000, examples=100, gqa=3)
DEAD = [rule.id for rule in RULES if rule.severity == "must"]


def variant(module: dict[str, Any]) -> Variant:
    return load_variant({"name": "case", "modules": [module]})


def ids(found: Variant, facts: Facts = KNOWN) -> set[str]:
    return {a.rule.id for a in advice(found, facts)}


def test_every_rule_has_a_case() -> None:
    assert [rule.id for rule in RULES] == list(CASES)


@pytest.mark.parametrize("rule", list(CASES))
def test_speaks_where_it_should(rule: str) -> None:
    broken, kept = CASES[rule]
    assert rule in ids(variant(broken))
    assert rule not in ids(variant(kept))


def test_a_fact_that_is_not_known_breaks_no_rule() -> None:
    for rule in ("long-inputs-dilute", "share-when-data-are-few", "position-free-read"):
        assert rule not in ids(variant(CASES[rule][0]), Facts())


def test_queries_known_to_be_level_need_no_norm() -> None:
    """Only where the model's own queries are asked, and only between half and twice the size of normalised ones."""
    rule = "normalise-before-quadratic"
    head = variant(CASES[rule][0])
    beside = variant({**CASES[rule][0], "site": "ffn"})
    for scale, silent in (((0.6, 1.9), True), ((0.1, 1.9), False), ((0.6, 2.1), False)):
        assert (rule not in ids(head, Facts(query_scale=scale))) is silent
        assert rule in ids(beside, Facts(query_scale=scale))


def test_facts_in_words() -> None:
    assert Facts().sentence() == "nothing is known"
    assert Facts(27.0, 4440, 1, (0.1, 1.5)).sentence() == (
        "a usual input of 27 tokens, 4,440 training examples, 1 query head per kv head, "
        "queries of size 0.10 to 1.50 by layer"
    )


@pytest.mark.parametrize("rule", DEAD)
def test_what_must_not_be_is_dead(rule: str) -> None:
    """The module a must-rule refuses gets no gradient at all at init; its neighbour does."""
    tokens = torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(0))
    moved = []
    for module in CASES[rule]:
        model = tiny_model()
        handle = ctxpeft.attach(model, variant(module), seed=0)
        model(tokens, labels=tokens).loss.backward()
        moved.append(any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in handle.parameters()))
    assert moved == [False, True]


def test_what_ships_is_alive() -> None:
    for name in shipped_names("variants"):
        assert not [a for a in advice(load_variant(name)) if a.rule.severity == "must"], name


def test_sentences_name_the_place() -> None:
    (first, *_) = advice(variant(CASES["alive-at-init"][0]))
    assert first.sentence().startswith("must: modules[0].gate: a gate that starts at zero needs a memory")
    assert first.sentence().endswith("[alive-at-init]")

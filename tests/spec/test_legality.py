"""Every row of the table of legal combinations refuses what it names, with its reason, at its key."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ctxpeft.errors import SpecError
from ctxpeft.shipped import shipped_names
from ctxpeft.spec.legality import TABLE
from ctxpeft.spec.load import load_variant

SLOTS = {"kind": "slots"}
MATRIX = {"kind": "matrix"}
VECTOR = {"kind": "vector"}
ELU = {"kind": "elu"}
RELU = {"kind": "relu"}
SCALAR = {"kind": "scalar"}
PROMPT = {"kind": "slots", "parameterization": {"kind": "prompt"}}
FROZEN = {"kind": "slots", "parameterization": {"kind": "frozen_projection"}}
TEXT = {"kind": "text", "text": "hello"}
DEMONSTRATIONS = {"kind": "demonstrations", "text": "hello"}
INSIDE = {"placement": "inside", "memory": SLOTS}
OUTSIDE = {"placement": "outside", "memory": MATRIX, "feature_map": ELU}

BROKEN: dict[str, dict[str, Any]] = {
    "merge-of-inside": {**INSIDE, "merge": "add"},
    "merge-of-outside": {**OUTSIDE, "merge": "compete"},
    "inside-needs-a-softmax": {**INSIDE, "site": "ffn"},
    "sources-of-one-head-sites": {**OUTSIDE, "site": "ffn", "query": {"source": "rotated"}},
    "heads-of-one-head-sites": {**OUTSIDE, "site": "attention_output", "scope": {"heads": [0]}},
    "source-of-embeddings": {**OUTSIDE, "site": "embeddings", "query": {"source": "hidden"}},
    "gate-source-of-embeddings": {
        **OUTSIDE,
        "site": "embeddings",
        "gate": {"kind": "token", "source": "hidden"},
    },
    "embeddings-add": {**OUTSIDE, "site": "embeddings", "merge": "mix", "gate": SCALAR},
    "embeddings-need-a-memory": {
        "placement": "outside",
        "site": "embeddings",
        "merge": "scale",
        "gate": SCALAR,
        "memory": {"kind": "none"},
    },
    "embeddings-have-no-layers": {**OUTSIDE, "site": "embeddings", "scope": {"layers": [0]}},
    "scale-has-no-memory": {**OUTSIDE, "merge": "scale", "gate": SCALAR},
    "no-memory-only-scales": {"placement": "outside", "memory": {"kind": "none"}},
    "scale-and-mix-need-a-gate": {**OUTSIDE, "merge": "mix"},
    "past-the-projection-is-added": {**INSIDE, "projected": False},
    "feature-map-required": {"placement": "outside", "memory": MATRIX},
    "feature-map-forbidden": {**INSIDE, "feature_map": RELU},
    "inside-needs-mass": {"placement": "inside", "memory": MATRIX, "feature_map": ELU},
    "normalizer-is-outside-only": {**INSIDE, "normalizer": "softmax"},
    "normalizer-of-memory": {**OUTSIDE, "normalizer": "softmax"},
    "sum-needs-positive-map": {**OUTSIDE, "normalizer": "sum"},
    "gate-on-mass-is-inside-only": {**OUTSIDE, "gate": {**SCALAR, "on": "mass", "activation": "exp"}},
    "gate-on-mass-is-positive": {**INSIDE, "gate": {**SCALAR, "on": "mass"}},
    "channel-gate-is-outside-only": {**INSIDE, "gate": {**SCALAR, "per": "channel"}},
    "length-bias-needs-its-merge": {**INSIDE, "length_bias": -1.0},
    "frozen-projection-at-head": {"placement": "outside", "memory": FROZEN, "site": "ffn"},
    "frozen-projection-has-head-width": {
        "placement": "inside",
        "memory": FROZEN,
        "query": {"source": "output"},
    },
    "slot-gates-see-a-hidden-state": {
        "placement": "outside",
        "site": "embeddings",
        "memory": {"kind": "slots", "gated": True},
    },
    "slot-gates-scale-a-softmax-score": {
        "placement": "outside",
        "memory": {"kind": "slots", "gated": True, "score": "relu"},
    },
    "virtual-tokens-stand-somewhere": {"placement": "inside", "memory": {**PROMPT, "position": "raw"}},
    "virtual-tokens-come-alone": {"placement": "inside", "memory": {**PROMPT, "frozen": 1}},
    "vocabulary-fills-virtual-tokens": {
        "placement": "inside",
        "memory": {"kind": "slots", "init": {"kind": "vocabulary"}},
    },
    "position-at-head": {"placement": "outside", "site": "ffn", "memory": {**SLOTS, "position": "before"}},
    "position-under-a-softmax": {
        "placement": "inside",
        "memory": {**SLOTS, "score": "norga", "position": "auto"},
    },
    "position-of-rotated-queries": {
        "placement": "inside",
        "query": {"source": "unrotated"},
        "memory": {**SLOTS, "position": "offset"},
    },
    "virtual-tokens-under-a-softmax": {
        "placement": "inside",
        "memory": {**PROMPT, "score": "norga", "position": "raw"},
    },
    "log-mass-gate-at-head": {**OUTSIDE, "site": "ffn", "gate": {"kind": "token", "source": "log_mass"}},
    "frozen-projection-per-kv-head": {"placement": "inside", "memory": {**FROZEN, "per": "layer"}},
    "text-fills-slots": {"placement": "outside", "memory": {"kind": "vector", "init": TEXT}},
    "demonstrations-fill-a-matrix": {
        "placement": "inside",
        "memory": {"kind": "slots", "init": DEMONSTRATIONS},
    },
    "ridge-fits-what-is-added": {
        "placement": "inside",
        "feature_map": RELU,
        "memory": {"kind": "matrix", "init": DEMONSTRATIONS},
    },
    "delta-rule-has-no-mass": {
        "placement": "outside",
        "normalizer": "sum",
        "feature_map": RELU,
        "memory": {"kind": "matrix", "init": {**DEMONSTRATIONS, "method": "delta"}},
    },
    "learned-kernel-shares-its-slots": {
        "placement": "outside",
        "memory": {"kind": "slots", "score": "kernel"},
        "feature_map": {"kind": "hedgehog"},
    },
}

KERNEL = {"kind": "slots", "score": "kernel"}
TAYLOR = {"kind": "taylor", "width": None}
REBASED = {"kind": "rebased"}
SIGNED = ({"kind": "elu"}, TAYLOR, REBASED, {"kind": "film", "base": {"kind": "relu"}})
LEGAL: list[dict[str, Any]] = [
    INSIDE,
    OUTSIDE,
    {**OUTSIDE, "projected": False},
    {"placement": "inside", "memory": KERNEL, "feature_map": TAYLOR},
    {"placement": "inside", "memory": KERNEL, "feature_map": REBASED, "phi_per": "kv_head"},
    {"placement": "outside", "memory": KERNEL, "feature_map": TAYLOR, "normalizer": "sum"},
    {"placement": "inside", "memory": {**PROMPT, "init": {"kind": "vocabulary"}}},
    {**INSIDE, "memory": {**SLOTS, "position": "before"}},
    {**INSIDE, "merge": "compete_length", "length_bias": -1.0},
    {**INSIDE, "normalizer": "none"},
    {**INSIDE, "gate": {**SCALAR, "on": "mass", "activation": "exp"}},
    {**INSIDE, "gate": {"kind": "constant", "on": "mass", "value": 0.5}},
    {"placement": "inside", "memory": VECTOR},
    {"placement": "inside", "memory": MATRIX, "feature_map": RELU},
    {"placement": "outside", "memory": VECTOR, "site": "ffn"},
    {"placement": "outside", "memory": MATRIX, "feature_map": RELU, "normalizer": "sum"},
    {"placement": "inside", "memory": MATRIX, "feature_map": {"kind": "projection", "activation": "relu"}},
    {
        "placement": "outside",
        "memory": MATRIX,
        "feature_map": {"kind": "film", "base": {"kind": "favor_plus"}},
    },
    {
        "placement": "inside",
        "memory": {"kind": "slots", "score": "kernel"},
        "feature_map": {"kind": "favor_plus"},
    },
    {
        "placement": "outside",
        "memory": {"kind": "slots", "score": "kernel"},
        "feature_map": {"kind": "taylor", "width": None},
    },
    {
        "placement": "outside",
        "memory": {"kind": "none"},
        "merge": "scale",
        "gate": {**SCALAR, "per": "channel"},
    },
    {
        "placement": "outside",
        "memory": {"kind": "slots", "score": "kernel"},
        "feature_map": {"kind": "hedgehog"},
        "phi_per": "kv_head",
    },
]


def test_every_row_has_an_example() -> None:
    assert set(BROKEN) == {row.id for row in TABLE}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_refused_with_reason_and_key(row: Any) -> None:
    with pytest.raises(SpecError) as caught:
        load_variant({"name": "x", "modules": [BROKEN[row.id]]})
    assert str(caught.value) == f"variant: modules[0].{row.key}: {row.reason}"


@pytest.mark.parametrize("module", LEGAL, ids=str)
def test_legal(module: dict[str, Any]) -> None:
    assert len(load_variant({"name": "x", "modules": [module]}).modules) == 1


@pytest.mark.parametrize("feature_map", SIGNED, ids=lambda phi: phi["kind"])
@pytest.mark.parametrize(
    "how", [{"placement": "inside"}, {"placement": "outside", "normalizer": "sum"}], ids=str
)
def test_a_positive_kernel_is_enough_for_slots_and_not_for_a_matrix(
    feature_map: dict[str, Any], how: dict[str, Any]
) -> None:
    """A matrix weighs features one by one, so it needs positive ones; slots need a positive sum of products."""
    data = {**how, "feature_map": feature_map, "phi_per": "kv_head"}
    row = "inside-needs-mass" if how["placement"] == "inside" else "sum-needs-positive-map"
    reason = next(r.reason for r in TABLE if r.id == row)
    memories = [MATRIX, KERNEL] if feature_map["kind"] == "elu" else [MATRIX]
    for memory in memories:
        with pytest.raises(SpecError, match=re.escape(reason)):
            load_variant({"name": "x", "modules": [{**data, "memory": memory}]})
    if KERNEL not in memories:
        assert load_variant({"name": "x", "modules": [{**data, "memory": KERNEL}]}).modules[0].needs_mass()


@pytest.mark.parametrize(
    ("row", "module"),
    [
        (
            "inside-needs-mass",
            {"placement": "inside", "memory": MATRIX, "feature_map": {"kind": "projection"}},
        ),
        (
            "inside-needs-mass",
            {"placement": "inside", "memory": MATRIX, "feature_map": {"kind": "film", "base": RELU}},
        ),
        ("sum-needs-positive-map", {**OUTSIDE, "feature_map": {"kind": "taylor"}, "normalizer": "sum"}),
        (
            "learned-kernel-shares-its-slots",
            {
                "placement": "outside",
                "memory": {"kind": "slots", "score": "kernel"},
                "feature_map": {"kind": "taylor"},
            },
        ),
    ],
)
def test_the_options_of_a_map_decide(row: str, module: dict[str, Any]) -> None:
    """Rows ask the map as it is configured, not its kind."""
    with pytest.raises(SpecError) as caught:
        load_variant({"name": "x", "modules": [module]})
    assert next(r.reason for r in TABLE if r.id == row) in str(caught.value)


def test_what_is_left_out_is_resolved() -> None:
    inside = load_variant({"name": "x", "modules": [INSIDE]}).modules[0]
    assert (inside.merge, inside.normalizer, inside.query.source) == ("compete", "none", "rotated")
    outside = load_variant({"name": "x", "modules": [{"placement": "outside", "memory": SLOTS}]}).modules[0]
    assert (outside.merge, outside.normalizer, outside.query.source) == ("add", "softmax", "rotated")
    beside = load_variant({"name": "x", "modules": [{**OUTSIDE, "site": "ffn"}]}).modules[0]
    assert (beside.merge, beside.normalizer, beside.query.source) == ("add", "none", "hidden")


IDENTITY = {
    "llama-adapter",
    "parallel-adapter-attention",
    "parallel-adapter-ffn",
    "prefix-tuning-plus",
    "prefix-tuning-plus-gelu",
    "prefix-tuning-plus-unrotated",
}


def test_who_claims_identity_at_init() -> None:
    claimed = {name for name in shipped_names("variants") if load_variant(name).identity_at_init()}
    assert claimed >= IDENTITY
    assert not claimed & {"prefix-tuning", "p-tuning-v2", "ntk-attention", "length-compensated", "lora-qv"}


@pytest.mark.parametrize(
    ("gate", "identity"),
    [
        ({"kind": "scalar", "activation": "linear", "init": 1.0}, True),
        ({"kind": "scalar", "activation": "exp", "init": 0.0}, True),
        ({"kind": "token", "activation": "linear", "init": 1.0}, True),
        ({"kind": "scalar", "activation": "linear", "init": 0.0}, False),
        ({"kind": "scalar", "activation": "sigmoid", "init": 1.0}, False),
    ],
)
def test_scaling_is_identity_where_its_gate_begins_at_one(gate: dict[str, Any], identity: bool) -> None:
    scale = {"placement": "outside", "merge": "scale", "memory": {"kind": "none"}, "gate": gate}
    assert load_variant({"name": "x", "modules": [scale]}).identity_at_init() is identity


@pytest.mark.parametrize(
    ("gate", "identity"),
    [
        ({"kind": "none"}, False),
        ({"kind": "scalar", "init": 0.0}, True),
        ({"kind": "scalar", "init": 0.1}, False),
        ({"kind": "scalar", "activation": "sigmoid"}, False),
        ({"kind": "token", "activation": "linear"}, True),
        ({"kind": "constant", "value": 0.0}, True),
    ],
)
def test_inside_identity_needs_a_zero_gate_on_the_weight(gate: dict[str, Any], identity: bool) -> None:
    assert load_variant({"name": "x", "modules": [{**INSIDE, "gate": gate}]}).identity_at_init() is identity

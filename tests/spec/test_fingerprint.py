"""The fingerprint sees the method and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings

from ctxpeft.shipped import shipped_names
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.strategies import variants

PLUS: dict[str, Any] = {
    "name": "plus",
    "modules": [{"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}],
}
SLOTS: dict[str, Any] = {"placement": "inside", "memory": {"kind": "slots", "count": 16}}


def fingerprint(data: dict[str, Any]) -> str:
    return load_variant(data).fingerprint()


def changed(path: str, value: Any, base: dict[str, Any] = PLUS) -> dict[str, Any]:
    data = copy.deepcopy(base)
    node: Any = data
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    node[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("title", "a title"),
        ("source", "arXiv:0000.00000"),
        ("regime", "long inputs"),
        ("differs", "it does"),
        ("training", {"learning_rate": 0.1}),
    ],
)
def test_descriptions_do_not_enter(path: str, value: Any) -> None:
    assert fingerprint(changed(path, value)) == fingerprint(PLUS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("modules.0.merge", "add"),
        ("modules.0.site", "head"),
        ("modules.0.normalizer", "none"),
        ("modules.0.query", {"source": "rotated", "temperature": 1}),
        ("modules.0.query", {"temperature": 1.0}),
        ("modules.0.gate", {"kind": "none"}),
        ("modules.0.memory.per", "query_head"),
        ("modules.0.memory.form", "full"),
        ("modules.0.memory.init", {"kind": "zeros"}),
        ("modules.0.length_bias", -0.0),
        ("modules.0.scope", {"layers": "all", "heads": "all"}),
    ],
)
def test_defaults_are_filled(path: str, value: Any) -> None:
    assert fingerprint(changed(path, value)) == fingerprint(PLUS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("modules.0.placement", "inside"),
        ("modules.0.memory.count", 17),
        ("modules.0.memory.init", {"kind": "normal", "std": 0.03}),
        ("modules.0.memory.value_init", {"kind": "zeros"}),
        ("modules.0.query", {"norm": "rms"}),
        ("modules.0.gate", {"kind": "scalar"}),
        ("modules.0.scope", {"layers": {"last": 2}}),
    ],
)
def test_the_method_enters(path: str, value: Any) -> None:
    base = {"name": "slots", "modules": [{"placement": "outside", "memory": {"kind": "slots", "count": 16}}]}
    assert fingerprint(changed(path, value, base)) != fingerprint(base)


def test_numbers_are_normalised() -> None:
    whole = {"name": "x", "modules": [changed("memory.init", {"kind": "normal", "std": 1}, SLOTS)]}
    real = {"name": "x", "modules": [changed("memory.init", {"kind": "normal", "std": 1.0}, SLOTS)]}
    assert fingerprint(whole) == fingerprint(real)
    counted = {"name": "x", "modules": [changed("memory.count", 16.0, SLOTS)]}
    assert fingerprint(counted) == fingerprint({"name": "x", "modules": [SLOTS]})
    peft = {"name": "x", "peft": {"peft_type": "LORA", "r": 8, "lora_alpha": 16}}
    assert fingerprint(peft) == fingerprint(changed("peft.lora_alpha", 16.0, peft))


def test_the_order_of_keys_does_not_enter() -> None:
    reordered = {"modules": [dict(reversed(PLUS["modules"][0].items()))], "name": "plus"}
    assert fingerprint(reordered) == fingerprint(PLUS)


def test_the_order_of_modules_enters() -> None:
    first, second = PLUS["modules"][0], SLOTS
    forward = {"name": "x", "modules": [first, second]}
    backward = {"name": "x", "modules": [second, first]}
    assert fingerprint(forward) != fingerprint(backward)


def test_sharing_at_a_site_of_one_head_is_one_thing() -> None:
    module = {
        "placement": "outside",
        "site": "ffn",
        "feature_map": {"kind": "projection", "width": 8},
        "memory": {"kind": "matrix"},
    }
    prints = set()
    for per in ("query_head", "kv_head", "layer"):
        data = changed("memory.per", per, {**module, "phi_per": per})
        prints.add(fingerprint({"name": "x", "modules": [data]}))
    assert len(prints) == 1
    whole = changed("memory.per", "model", {**module, "phi_per": "layer"})
    assert fingerprint({"name": "x", "modules": [whole]}) not in prints
    assert fingerprint({"name": "x", "modules": [{**module, "phi_per": "model"}]}) not in prints


def test_shipped_variants_are_all_different() -> None:
    names = shipped_names("variants")
    assert len({load_variant(name).fingerprint() for name in names}) == len(names)


def test_the_fingerprint_is_pinned() -> None:
    """Saved adapters and studies hold fingerprints: a change of this value orphans them."""
    expected = "96a3758895ea246c85c0e9a7232915849830db9e92f6ee7a23bfe86bb9c21096"
    assert load_variant("prefix-tuning-plus").fingerprint() == expected


@settings(max_examples=30)
@given(variants(), variants())
def test_equal_modules_have_equal_fingerprints(one: Variant, other: Variant) -> None:
    renamed = one.model_copy(update={"name": "renamed", "title": "other"})
    assert renamed.fingerprint() == one.fingerprint()
    if one.fingerprint() != other.fingerprint():
        assert one.modules != other.modules

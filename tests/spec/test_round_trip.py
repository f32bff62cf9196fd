"""A variant comes back exactly: from Python, from a dict, from YAML, from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ctxpeft
from ctxpeft.shipped import shipped_names
from ctxpeft.spec.base import compact
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import dump_yaml, parse_yaml
from ctxpeft.testing.strategies import variants

SHIPPED = shipped_names("variants")


def assert_comes_back(variant: Variant) -> None:
    data = variant.to_dict()
    text = variant.to_yaml()
    again = parse_yaml(text, "again").data
    assert again == data
    full = parse_yaml(variant.to_yaml(defaults=True), "full").data
    for read in (
        load_variant(data),
        load_variant(again),
        load_variant(full),
        Variant.model_validate(variant.model_dump()),
    ):
        assert read == variant
        assert read.fingerprint() == variant.fingerprint()
        assert read.to_yaml() == text


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_variants(name: str, tmp_path: Path) -> None:
    variant = load_variant(name)
    assert variant.name == name
    assert variant.title
    assert variant.source
    assert_comes_back(variant)
    variant.to_yaml(tmp_path / "copy.yaml")
    assert Variant.from_yaml(tmp_path / "copy.yaml") == variant
    assert load_variant(tmp_path / "copy.yaml") == variant
    assert load_variant(str(tmp_path / "copy.yaml")) == variant


def test_the_design_names_ship() -> None:
    assert {"prefix-tuning-plus", "prefix-tuning", "llama-adapter", "lora-qv", "lora-all", "ia3"} <= set(
        SHIPPED
    )


def test_a_null_that_is_not_the_default_is_written_out() -> None:
    phi = {"kind": "taylor", "width": None}
    module = {"placement": "outside", "feature_map": phi, "memory": {"kind": "matrix"}}
    variant = load_variant({"name": "x", "modules": [module]})
    full = parse_yaml(variant.to_yaml(defaults=True), "full").data
    assert full["modules"][0]["feature_map"] == phi
    assert "training" in full
    assert "peft" not in full
    assert_comes_back(variant)


@given(variants())
def test_random_variants(variant: Variant) -> None:
    assert_comes_back(variant)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False), st.lists)
)
def test_plain_data_survives_yaml(value: object) -> None:
    assert parse_yaml(dump_yaml({"key": value}), "text").data == {"key": value}


@pytest.mark.parametrize(
    "text", ["on", "no", "1e3", "3e-3", "010", "0x1F", "1:30", "2020-01-01", "~", ".inf", "=", "<<"]
)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert parse_yaml(dump_yaml({"title": text}), "text").data == {"title": text}


def test_python_specs_and_tuples_are_accepted() -> None:
    from ctxpeft.blocks.memory.slots import Slots
    from ctxpeft.spec.module import ModuleSpec
    from ctxpeft.spec.scope import Scope

    module = ModuleSpec(placement="inside", memory=Slots(count=4), scope=Scope(layers=(0, 2)))
    variant = Variant(name="python", modules=(module,))
    assert variant == load_variant(
        {
            "name": "python",
            "modules": [
                {"placement": "inside", "memory": {"kind": "slots", "count": 4}, "scope": {"layers": [0, 2]}}
            ],
        }
    )
    assert_comes_back(variant)


def test_a_compact_dump_leaves_defaults_out() -> None:
    variant = load_variant("prefix-tuning-plus")
    memory = compact(variant)["modules"][0]["memory"]
    assert memory == {"kind": "matrix"}


def test_a_variant_is_returned_as_it_is() -> None:
    variant = load_variant("prefix-tuning")
    assert ctxpeft.load_variant(variant) is variant


def test_a_folder_with_a_variant_file_is_read(tmp_path: Path) -> None:
    load_variant("ia3").to_yaml(tmp_path / "variant.yaml")
    assert load_variant(tmp_path) == load_variant("ia3")

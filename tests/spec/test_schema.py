"""The JSON schema accepts what we ship and refuses what an editor should underline."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from ctxpeft.shipped import shipped_file, shipped_names
from ctxpeft.spec.registry import families, kinds
from ctxpeft.spec.schema import variant_schema
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import read_yaml
from ctxpeft.testing.strategies import variants

VALIDATOR = jsonschema.Draft202012Validator(variant_schema())
MATRIX: dict[str, Any] = {
    "placement": "outside",
    "feature_map": {"kind": "elu"},
    "memory": {"kind": "matrix"},
}


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(variant_schema())


@pytest.mark.parametrize("name", shipped_names("variants"))
def test_shipped_variants_validate(name: str) -> None:
    path = shipped_file("variants", name)
    assert path is not None
    VALIDATOR.validate(read_yaml(path).data)


@settings(max_examples=25)
@given(variants())
def test_random_variants_validate(variant: Variant) -> None:
    VALIDATOR.validate(variant.to_dict())


def test_every_installed_kind_is_in_it() -> None:
    classes = {cls.__name__ for family in families() for cls in kinds(family).values()}
    assert classes <= set(variant_schema()["$defs"])


@pytest.mark.parametrize(
    "data",
    [
        {"name": "x", "modules": [{**MATRIX, "memory": {"kind": "matriks"}}]},
        {"name": "x", "modules": [{**MATRIX, "memory": {}}]},
        {"name": "x", "modules": [{**MATRIX, "memory": {"kind": "slots", "count": -1}}]},
        {"name": "x", "modules": [{**MATRIX, "placement": "beside"}]},
        {"name": "x", "modules": [{**MATRIX, "feature_map": {"kind": "film", "base": {"kind": "film"}}}]},
        {"name": "x", "modules": [{**MATRIX, "extra": 1}]},
        {"name": "Not a name", "modules": [MATRIX]},
        {"modules": [MATRIX]},
    ],
)
def test_it_refuses(data: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(data)

"""Variants survive being written."""

from __future__ import annotations

from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import parse_yaml
from ctxpeft.testing.laws.law import spec_law


@spec_law(equation="read(write(v)) = v", source="the spec")
def round_trip(variant: Variant) -> None:
    """A variant comes back equal, with its fingerprint, from data, from YAML and from YAML with every default."""
    data, text = variant.to_dict(), variant.to_yaml()
    again = parse_yaml(text, "again").data
    assert again == data
    full = parse_yaml(variant.to_yaml(defaults=True), "full").data
    dumped = Variant.model_validate(variant.model_dump())
    for read in (load_variant(data), load_variant(again), load_variant(full), dumped):
        assert read == variant
        assert read.fingerprint() == variant.fingerprint()
        assert read.to_yaml() == text

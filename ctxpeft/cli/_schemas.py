"""The JSON schemas of variant and space files, as editors read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ctxpeft.spec.schema import DIALECT, variant_schema

SCHEMAS = ("variant", "space")


def schema(kind: str) -> dict[str, Any]:
    """The schema of one of SCHEMAS."""
    found = variant_schema() if kind == "variant" else space_schema()
    return {"$schema": DIALECT, "$comment": f"written by: ctxpeft schema {kind}", **found}


def schema_text(kind: str) -> str:
    """The schema as a file holds it."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"


def space_schema() -> dict[str, Any]:
    """The schema of a search space: its templates know the keys and kinds of a module, and at each of them a choice, a
    range, `any` or `solve` may stand for a value. It accepts more than the grammar of spaces does."""
    from ctxpeft.search.spacefile import SpaceFile

    found, blocks = SpaceFile.model_json_schema(), variant_schema()["$defs"]
    for name, block in blocks.items():
        found["$defs"].setdefault(name, _pattern_of(block, blocks))
    template = {"anyOf": [{"$ref": "#/$defs/ModuleSpec"}, {"const": "any"}]}
    found["$defs"]["PositionSpec"]["properties"]["templates"]["additionalProperties"] = template
    return found


def _pattern_of(block: dict[str, Any], blocks: dict[str, Any]) -> dict[str, Any]:
    """A block of which every value may be left open."""
    if "properties" not in block:
        return block
    properties = {key: _open(value, blocks) for key, value in block["properties"].items()}
    kept = {key: value for key, value in block.items() if key != "required"}
    return {**kept, "properties": {**properties, "*": {"const": "any"}}}


def _open(value: dict[str, Any], blocks: dict[str, Any]) -> dict[str, Any]:
    """A value, its short form, a choice of them, or what stands for any of them."""
    short = [
        blocks[name]["properties"]["kind"]["const"] for name in _references(value) if _is_kind(blocks[name])
    ]
    one = [value, *([{"enum": short}] if short else []), {"enum": ["any", "solve"]}, {"type": "object"}]
    return {"anyOf": [*one, {"type": "array", "minItems": 1, "items": {"anyOf": [*one, {"type": "array"}]}}]}


def _is_kind(block: dict[str, Any]) -> bool:
    return "const" in block.get("properties", {}).get("kind", {})


def _references(value: Any) -> Iterator[str]:
    """The names of the definitions that a schema chooses among."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for key, inner in value.items():
            if key != "discriminator":
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)

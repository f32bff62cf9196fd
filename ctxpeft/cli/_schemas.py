"""The JSON schemas of variant and space files, as editors read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ctxpeft.spec.schema import DIALECT, variant_schema

SCHEMAS = ("variant", "space")
_LEFT_OPEN = "left-open"


def schema(kind: str) -> dict[str, Any]:
    """The schema of one of SCHEMAS."""
    found = variant_schema() if kind == "variant" else space_schema()
    return {"$schema": DIALECT, "$comment": f"written by: ctxpeft schema {kind}", **found}


def schema_text(kind: str) -> str:
    """The schema as a file holds it."""
    return json.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n"


def space_schema() -> dict[str, Any]:
    """The schema of a search space: its templates know the keys and kinds of a module, and at each of them a choice, a
    range, `any` or `solve` may stand for a value. It accepts more than the grammar of spaces does."""
    from ctxpeft.search.spacefile import SpaceFile

    found, blocks = SpaceFile.model_json_schema(), variant_schema()["$defs"]
    definitions = found["$defs"]
    definitions[_LEFT_OPEN] = {"anyOf": [{"enum": ["any", "solve"]}, {"type": "object"}]}
    for name, block in blocks.items():
        for key, values in _values_of(name, block, blocks):
            definitions[key] = values
        definitions.setdefault(name, _pattern_of(name, block))
    template = {"anyOf": [{"$ref": "#/$defs/ModuleSpec"}, {"const": "any"}]}
    definitions["PositionSpec"]["properties"]["templates"]["additionalProperties"] = template
    return found


def _pattern_of(name: str, block: dict[str, Any]) -> dict[str, Any]:
    """A block of which every value may be left open, or be one of a list."""
    if "properties" not in block:
        return block
    properties: dict[str, Any] = {"*": {"const": "any"}}
    for key in block["properties"]:
        one = {"$ref": f"#/$defs/{name}.{key}"}
        items = {"anyOf": [one, {"type": "array"}]}
        properties[key] = {"anyOf": [one, {"type": "array", "minItems": 1, "items": items}]}
    return {**{key: value for key, value in block.items() if key != "required"}, "properties": properties}


def _values_of(
    name: str, block: dict[str, Any], blocks: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """For every key of a block the name of a definition, and a value, its short form, or what stands for any value."""
    for key, value in block.get("properties", {}).items():
        kinds = [blocks[other] for other in _references(value) if _is_kind(blocks[other])]
        short = [{"enum": [kind["properties"]["kind"]["const"] for kind in kinds]}] if kinds else []
        yield f"{name}.{key}", {"anyOf": [value, *short, {"$ref": f"#/$defs/{_LEFT_OPEN}"}]}


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

"""The schemas in docs/schema, by which editors complete variants and spaces."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ctxpeft.cli._schemas import SCHEMAS, schema_text, space_schema
from ctxpeft.shipped import shipped_file, shipped_folder, shipped_names
from ctxpeft.spec.yaml_lines import read_yaml

SPACES = jsonschema.Draft202012Validator(space_schema())
HEADER = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_file_is_what_the_code_says(kind: str) -> None:
    path = shipped_folder("docs/schema") / f"{kind}.json"
    told = f"{path} is older than the specs: run `make schema` and commit it"
    assert path.read_text(encoding="utf-8") == schema_text(kind), told


@pytest.mark.parametrize(("folder", "kind"), [("variants", "variant"), ("search", "space")])
def test_every_shipped_file_names_its_schema(folder: str, kind: str) -> None:
    for name in shipped_names(folder):
        path = shipped_file(folder, name)
        assert path is not None
        header = HEADER.match(path.read_text(encoding="utf-8"))
        assert header, path
        named = (path.parent / header[1]).resolve()
        assert named == (shipped_folder("docs/schema") / f"{kind}.json").resolve(), path


@pytest.mark.parametrize("name", shipped_names("search"))
def test_shipped_spaces_validate(name: str) -> None:
    path = shipped_file("search", name)
    assert path is not None
    SPACES.validate(read_yaml(path).data)


def space(template: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A space of one position with one template."""
    return {"modules": [{"templates": {"one": template}}], **keys}


@pytest.mark.parametrize(
    "template",
    [
        {"placement": ["inside", "outside"], "memory": {"kind": "matrix"}},
        {"placement": "outside", "feature_map": ["elu", "relu", {"kind": "dpfp"}], "memory": "matrix"},
        {"placement": "outside", "feature_map": "any", "memory": {"kind": "matrix", "rank": "solve"}},
    ],
)
def test_what_stands_for_a_value_is_accepted(template: dict[str, Any]) -> None:
    SPACES.validate(space(template))


@pytest.mark.parametrize(
    "data",
    [
        space({"placement": "beside", "memory": {"kind": "matrix"}}),
        space({"placement": "outside", "feature_map": "elo", "memory": {"kind": "matrix"}}),
        space({"placement": "outside", "memoory": {"kind": "matrix"}}),
        space({"placement": "outside"}, anchor=["lora-qv"]),
    ],
)
def test_what_an_editor_underlines(data: dict[str, Any]) -> None:
    assert not SPACES.is_valid(data)


def test_the_schemas_stay_small(repository: Path) -> None:
    for path in (repository / "docs" / "schema").glob("*.json"):
        assert path.stat().st_size < 1 << 18
        assert "$defs" in json.loads(path.read_text(encoding="utf-8"))

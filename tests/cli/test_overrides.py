"""`key=value` settings and options that take several values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctxpeft.cli._arguments import expand_variadic
from ctxpeft.cli._overrides import parse_overrides, parse_value, place_overrides, set_path
from ctxpeft.errors import SpecError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-3", 0.003),
        ("1e5", 1e5),
        ("0.1", 0.1),
        ("true", True),
        ("no", "no"),
        ("null", None),
        ("", ""),
        ("[1, 2]", [1, 2]),
        ("{a: x, b: y}", {"a": "x", "b": "y"}),
        ("{text}", "{text}"),
        ("{text} Label:", "{text} Label:"),
        ("Question: {text} Answer:", "Question: {text} Answer:"),
        ("- x", "- x"),
        ("a=b", "a=b"),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_placing() -> None:
    pairs = parse_overrides(["steps=3", "task.limit=4", "limit=5", "columns.text=q", "variant.modules.0.x=1"])
    placed = place_overrides(pairs, {"training": ["steps"], "task": ["limit", "columns"]}, free=("variant",))
    assert placed == {
        "training": {"steps": 3},
        "task": {"limit": 5, "columns.text": "q"},
        "variant": {"modules.0.x": 1},
    }


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("stepz=1", "did you mean 'steps'"),
        ("training.stepz=1", r"did you mean 'training\.steps'"),
        ("=1", "is not a setting"),
        ("steps", "for example steps=250$"),
        ("lora-qv", "several variants are joined by commas: a,b,c$"),
        ("other.yaml", "several variants are joined by commas: a,b,c$"),
    ],
)
def test_unknown_settings(item: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        place_overrides(parse_overrides([item]), {"training": ["steps"]})


def test_set_path() -> None:
    tree: dict[str, Any] = {"modules": [{"memory": {"count": 4}}]}
    set_path(tree, "modules.0.memory.count", 8)
    set_path(tree, "modules.0.gate.kind", "scalar")
    assert tree == {"modules": [{"memory": {"count": 8}, "gate": {"kind": "scalar"}}]}
    for bad in ("modules.1.memory", "modules.x.memory", "modules.0.memory.count.x.y"):
        if bad.endswith("x.y"):
            set_path(tree, bad, 1)
            continue
        with pytest.raises(SpecError, match="expected an index from 0 to 0"):
            set_path(tree, bad, 1)


def test_options_of_several_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.csv").touch()
    arguments = ["--data", "x.csv", "a=b.csv", "steps=3", "--test", "y.csv", "z.csv", "--json"]
    assert expand_variadic(arguments) == [
        *("--data", "x.csv", "--data", "a=b.csv", "steps=3"),
        *("--test", "y.csv", "--test", "z.csv", "--json"),
    ]
    assert expand_variadic(["--data", "x.csv", "space.yaml"]) == ["--data", "x.csv", "space.yaml"]
    assert expand_variadic(["--model", "m", "a", "b"]) == ["--model", "m", "a", "b"]

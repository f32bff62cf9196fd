"""Files from strangers: YAML 1.2 scalars, lines, bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxpeft.errors import SpecError
from ctxpeft.spec.yaml_lines import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3", 0.003),
        ("1e5", 100000.0),
        ("1.0e-1", 0.1),
        (".5", 0.5),
        ("-.5", -0.5),
        ("16", 16),
        ("-16", -16),
        ("+16", 16),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0b11", "0b11"),
        ("e3", "e3"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}", "t").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_on_is_a_key_not_a_truth_value() -> None:
    assert parse_yaml("gate: {kind: scalar, on: mass}", "t").data == {
        "gate": {"kind": "scalar", "on": "mass"}
    }


def test_lines_of_keys() -> None:
    document = parse_yaml("name: x\n\nmodules:\n  - placement: inside\n    memory:\n      kind: slots\n", "t")
    assert document.line(("name",)) == 1
    assert document.line(("modules", 0)) == 4
    assert document.line(("modules", 0, "memory", "kind")) == 6
    assert document.line(("modules", 0, "memory", "count")) == 5
    assert document.where(("modules", 0, "memory", "kind")) == "t:6: modules[0].memory.kind"


def test_aliases_are_allowed_in_moderation() -> None:
    text = "a: &a {kind: elu}\nb: *a\nc: {<<: *a, x: 1}\n"
    assert parse_yaml(text, "t").data == {
        "a": {"kind": "elu"},
        "b": {"kind": "elu"},
        "c": {"kind": "elu", "x": 1},
    }


def test_json_is_yaml() -> None:
    assert parse_yaml('{"name": "x", "n": [1, 2.5, null, "\\u00e9"]}', "t").data == {
        "name": "x",
        "n": [1, 2.5, None, "é"],
    }


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases expand"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: {c: *a}}", "contains itself"),
        ("a: *missing", "undefined alias"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("[" * 5000, "levels"),
        ("{a: " * (MAX_DEPTH + 5) + "1" + "}" * (MAX_DEPTH + 5), "levels"),
        ("- x\n" * 30_000, "values"),
        ("a:\n\t- b", "tab"),
        ("a: [1, 2", "expected"),
        ("a: 'x", "end of stream"),
        ("a: b: c", "mapping values"),
        ("? [a]\n: b", "key must be plain text"),
        ("a: !!python/object:os.system {}", "tags such as"),
        ("a: !!int x", "tags such as"),
        ("a: !!bool x", "tags such as"),
        ("a: !!set {x}", "tags such as"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: \x07", "not text"),
        ("%YAML 3.0\n---\na", "incompatible"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_yaml(text, "t.yaml")
    assert str(caught.value).startswith("t.yaml")
    assert "\n" not in str(caught.value)


def test_the_size_is_bounded_even_for_files_without_one(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SpecError, match="too large"):
        read_yaml(large)
    endless = Path("/dev/zero")
    if endless.exists():
        with pytest.raises(SpecError, match="too large"):
            read_yaml(endless)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(file).data == {"name": "x"}

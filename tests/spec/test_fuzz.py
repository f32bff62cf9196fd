"""Whatever a file holds, reading it gives a variant or a SpecError of one line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxpeft.errors import SpecError
from ctxpeft.shipped import shipped_file, shipped_names
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant

SHIPPED = [shipped_file("variants", name).read_bytes() for name in shipped_names("variants")]  # type: ignore[union-attr]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["none", "slots", "matrix", "elu", "all", "inside", "outside", "scale", "mass", "LORA"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MARKS = (
    "&a |*a|!!|<<: |? |- |: |{|}|[|]|\t|\n|---\n|...\n|>\n|%YAML 1.1\n|'|\"|#|\x00|\ufeff|\u2028|.nan|1e999|~"
)
FRAGMENTS = st.sampled_from(MARKS.split("|")).map(str.encode) | st.just(b"\xff")


def variant_or_refusal(what: Any) -> Variant | str:
    try:
        return load_variant(what)
    except SpecError as error:
        return str(error)


def assert_read_or_refused(what: Any) -> None:
    found = variant_or_refusal(what)
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        return
    again = load_variant(found.to_dict())
    assert again == found
    assert again.fingerprint() == found.fingerprint()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "variant.yaml"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_bytes(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert_read_or_refused(file)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.sampled_from(SHIPPED),
    edits=st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 12), FRAGMENTS | st.binary(max_size=3)), max_size=4
    ),
)
def test_mutated_files(file: Path, content: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for start, length, new in edits:
        start %= len(content) + 1
        content = content[:start] + new + content[start + length :]
    file.write_bytes(content)
    assert_read_or_refused(file)


@settings(max_examples=200)
@given(base=st.sampled_from(shipped_names("variants")), data=st.data())
def test_mutated_data(base: str, data: st.DataObject) -> None:
    tree: Any = copy.deepcopy(load_variant(base).to_dict())
    node = tree
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(VALUES)
    if isinstance(node, dict) and data.draw(st.booleans()):
        node[data.draw(st.text(max_size=6) | st.sampled_from(["gate", "scope", "normalizer", "per"]))] = (
            data.draw(VALUES)
        )
    assert_read_or_refused(tree)

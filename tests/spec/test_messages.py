"""What a mistake is told as: one sentence, what was expected, what was found, the nearest valid name."""

from __future__ import annotations

from typing import Any

import pytest

from ctxpeft.errors import SpecError
from ctxpeft.spec.load import load_variant


def slots(**fields: Any) -> dict[str, Any]:
    return module(memory={"kind": "slots", **fields})


def module(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "modules": [{"placement": "inside", "memory": {"kind": "slots"}, **fields}]}


LAYERS = "modules[0].scope.layers"
COUNT = "modules[0].memory.count"

CASES: list[tuple[Any, str]] = [
    (slots(count=-3), f"{COUNT}: expected a whole number ≥ 1, found -3"),
    (slots(count=1 << 20), f"{COUNT}: expected a whole number ≤ 65536, found 1048576"),
    (slots(count=1.5), f"{COUNT}: expected a whole number, found 1.5"),
    (slots(count="32"), f"{COUNT}: expected a whole number, found '32'"),
    (slots(count=True), f"{COUNT}: expected a whole number, found true"),
    (slots(count=None), f"{COUNT}: expected a whole number, found nothing"),
    (slots(count=[1]), f"{COUNT}: expected a whole number, found a list"),
    (
        slots(count=[1, 2]),
        f"{COUNT}: expected a whole number, found a list; a choice is for a search space, where a module stands as "
        "templates: {NAME: {placement: ...}}",
    ),
    (slots(count={"low": 1, "high": 2}), "found a mapping; a choice is for a search space"),
    (module(feature_map=["elu", "gelu"]), "found a list; a choice is for a search space"),
    (slots(init="zeros"), "modules[0].memory.init: expected a mapping such as {kind: zeros}, found 'zeros'"),
    (slots(init=3), "modules[0].memory.init: expected a mapping with a 'kind', found 3"),
    (slots(init={"kind": "norml"}), "modules[0].memory.init: unknown kind 'norml'; did you mean 'normal'?"),
    (slots(init={"kind": "normal", "std": float("nan")}), "expected a finite number, found nan"),
    (slots(init={"kind": "normal", "std": float("inf")}), "expected a finite number, found inf"),
    (slots(init={"kind": "normal", "std": -1}), "expected a number ≥ 0, found -1"),
    (slots(init={"kind": "normal", "std": 10**400}), "modules[0].memory.init.std: "),
    (slots(score="sofmax"), "memory.score: 'sofmax' is not valid here; did you mean 'softmax'?"),
    (slots(coutn=3), "modules[0].memory.coutn: unknown key 'coutn'; did you mean 'count'?"),
    (
        slots(parameterization={"kind": "mlp", "hiden": 3}),
        "modules[0].memory.parameterization.hiden: unknown key 'hiden'; did you mean 'hidden'?",
    ),
    (
        module(feature_map={"kind": "film", "base": {"kind": "film"}}),
        "modules[0].feature_map.base: 'film' is made of another feature_map and cannot stand inside one",
    ),
    (
        module(feature_map={"kind": "film", "base": {"kind": "hedghog"}}),
        "modules[0].feature_map.base: unknown kind 'hedghog'; did you mean 'hedgehog'?",
    ),
    (
        module(feature_map={"kind": "film", "base": {"kind": "favor_plus", "widht": 3}}),
        "modules[0].feature_map.base.widht: unknown key 'widht'; did you mean 'width'?",
    ),
    (
        module(feature_map={"kind": "film", "base": {"kind": "favor_plus", "width": 0}}),
        "modules[0].feature_map.base.width: expected a whole number ≥ 1, found 0",
    ),
    (
        module(memory={}),
        "modules[0].memory: missing 'kind'; valid names: edit, matrix, none, positions, slots, vector",
    ),
    (module(memory="slots"), "modules[0].memory: expected a mapping such as {kind: slots}"),
    (module(memory=None), "modules[0].memory: expected a mapping with a 'kind', found nothing"),
    (module(placement="insde"), "modules[0].placement: 'insde' is not valid here; did you mean 'inside'?"),
    (module(placment="inside"), "modules[0].placment: unknown key 'placment'; did you mean 'placement'?"),
    (module(query={"learned_temperature": "yes"}), "expected true or false, found 'yes'"),
    (module(query={"temperature": 0}), "expected a number > 0, found 0"),
    (module(scope={"layers": "al"}), f"{LAYERS}: expected 'all' or a mapping or a list, found 'al'"),
    (module(scope={"layers": []}), f"{LAYERS}: expected a list with at least 1 item, found an empty list"),
    (module(scope={"layers": [-1]}), f"{LAYERS}[0]: expected a whole number ≥ 0, found -1"),
    (module(scope={"layers": {"frist": 2}}), f"{LAYERS}.frist: unknown key 'frist'; did you mean 'first'?"),
    (module(scope={"layers": {"first": 1, "last": 2}}), f"{LAYERS}: expected exactly one of 'first'"),
    (module(scope={"layers": {"last": 0}}), f"{LAYERS}.last: expected "),
    (module(scope={"layers": {"last": 1.5}}), f"{LAYERS}.last: expected "),
    (module(scope={"layers": [1, 1]}), "modules[0].scope: 'layers' names an index twice: [1, 1]"),
    ({"name": "x"}, "expected either a non-empty list 'modules' or a mapping 'peft', found neither"),
    ({**module(), "peft": {"peft_type": "LORA"}}, "'modules' or a mapping 'peft', found both"),
    ({"name": "x", "modules": {}}, "modules: expected a list, found a mapping"),
    ({"name": "x", "modules": [3]}, "modules[0]: expected a mapping, found 3"),
    ({**module(), "name": 5}, "name: expected text, found 5"),
    ({**module(), "name": "A b"}, "name: expected lower-case letters, digits, "),
    ({**module(), "name": "x" * 90}, "name: expected at most 80 characters, found 'xxx"),
    ({"modules": module()["modules"]}, "name: missing; this key is required"),
    ({**module(), "mod\nules": 1}, "mod\\nules: unknown key 'mod\\nules'; did you mean 'modules'?"),
    ({**module(), "\x1b[31mred": 1}, "unknown key '\\x1b[31mred'"),
    ({**module(), 1: 2}, "a key must be text"),
    ({"name": "x", "peft": {}}, "peft.peft_type: missing; this key is required"),
    ({"name": "x", "peft": []}, "peft: expected a mapping, found an empty list"),
    ({"name": "x", "peft": {"peft_type": "lora"}}, "unknown peft_type 'lora'; did you mean 'LORA'?"),
    ({"name": "x", "peft": {"peft_type": "PREFIX_TUNING"}}, "cannot be injected in place by PEFT"),
    ({"name": "x", "peft": {"peft_type": "LORA", "r": float("nan")}}, "'r' must be plain data"),
    ({"name": "x", "peft": {"peft_type": "LORA", "r": {1, 2}}}, "'r' must be plain data"),
    (5, "expected a variant's name, a path, a mapping or a Variant, found 5"),
    (None, "expected a variant's name, a path, a mapping or a Variant, found nothing"),
    ("prefix-tunin", "no shipped variant is called 'prefix-tunin' and no such file exists; did you mean"),
    ("", "no shipped variant is called ''"),
    ("a\0b", "no shipped variant is called 'a\\x00b'"),
    ("nowhere/file.yaml", "nowhere/file.yaml: no such file"),
    ("a\0.yaml", "cannot be read"),
    ("x" * 5000 + ".yaml", "cannot be read"),
]


@pytest.mark.parametrize(("what", "message"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_messages(what: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_variant(what)
    text = str(caught.value)
    assert message in text
    assert len(text.splitlines()) == 1
    assert "Input should" not in text
    assert "pydantic" not in text


def test_data_from_python_has_no_line_numbers() -> None:
    with pytest.raises(SpecError, match=r"^variant: modules\[0\]\.memory\.count: "):
        load_variant(slots(count=-3))

"""`key=value` settings: dotted keys, YAML values, and the nearest valid key when one is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.shipped import shipped_names
from ctxpeft.spec.yaml_lines import parse_yaml


def parse_overrides(items: Iterable[str]) -> list[tuple[str, Any]]:
    """`["steps=100", "task.limit=50"]` as `[("steps", 100), ("task.limit", 50)]`.

    Values are YAML scalars, lists or maps; `3e-3` is a number, a value YAML cannot read is kept as text.

    Raises:
        SpecError: an item without `=` or without a key.
    """
    return [_parse_one(item) for item in items]


def _parse_one(item: str) -> tuple[str, Any]:
    key, sep, text = item.partition("=")
    if not sep or not key.strip():
        several = item.endswith((".yaml", ".yml")) or item in shipped_names("variants")
        hint = "; several variants are joined by commas: a,b,c" if several else ""
        raise SpecError(f"'{item}' is not a setting: expected key=value, for example steps=250{hint}")
    return key.strip(), parse_value(text)


def parse_value(text: str) -> Any:
    """One value as a spec file would read it: `3e-3` is a number, `no` is text, `[a, b]` and `{a: b}` are what they
    look like; `{text}` and `Answer: x` are text.
    """
    try:
        value = parse_yaml(text, "value").data if text else ""
    except SpecError:
        return text
    if isinstance(value, dict):
        return value if text.startswith("{") and any(v is not None for v in value.values()) else text
    return text if isinstance(value, list) and not text.startswith("[") else value


def place_overrides(
    overrides: Sequence[tuple[str, Any]], sections: Mapping[str, Iterable[str]], free: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Sort settings into sections.

    `sections` maps a section's name to its valid keys, in order of precedence for bare keys; `free` names
    sections whose keys are checked elsewhere (a variant's tree). `limit=5` and `task.limit=5` are the same.

    Raises:
        SpecError: a key no section knows, with the nearest valid one.
    """
    known = {name: list(keys) for name, keys in sections.items()}
    loose = set(free)
    placed: dict[str, dict[str, Any]] = {name: {} for name in [*known, *loose]}
    for key, value in overrides:
        head, _, rest = key.partition(".")
        if rest and head in loose:
            placed[head][rest] = value
        elif rest and head in known:
            if rest.partition(".")[0] not in known[head]:
                valid = [f"{head}.{name}" for name in known[head]]
                raise SpecError(f"unknown setting '{key}'{did_you_mean(key, valid)}")
            placed[head][rest] = value
        else:
            owner = next((name for name, keys in known.items() if head in keys), None)
            if owner is None:
                whole = [f"{name}.{k}" for name, keys in known.items() for k in keys]
                bare = [k for keys in known.values() for k in keys]
                valid = (whole if rest else bare) + [f"{name}." for name in loose]
                raise SpecError(f"unknown setting '{key}'{did_you_mean(key, valid)}")
            placed[owner][key] = value
    return placed


def set_path(tree: Any, dotted: str, value: Any) -> None:
    """Set `tree["a"][0]["b"] = value` for the key `a.0.b`, in place; missing maps are made.

    Raises:
        SpecError: an index out of range, or a step into something that is not a map or list.
    """
    *parents, last = dotted.split(".")
    node = tree
    for depth, step in enumerate(parents):
        node = _step(node, step, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
        node[_index(node, last, dotted)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise SpecError(f"cannot set '{dotted}': '{'.'.join(parents)}' is a {type(node).__name__}, not a map")


def _step(node: Any, step: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, step, path)]
    if isinstance(node, dict):
        if not isinstance(node.get(step), dict | list):
            node[step] = {}
        return node[step]
    raise SpecError(f"cannot set '{path}': its parent is a {type(node).__name__}, not a map")


def _index(node: list[Any], step: str, path: str) -> int:
    if not step.isdigit() or int(step) >= len(node):
        raise SpecError(f"cannot set '{path}': expected an index from 0 to {len(node) - 1}, got '{step}'")
    return int(step)

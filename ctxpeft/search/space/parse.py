"""The grammar of a space file, checked against the spec's types.

At every key path of a module stands one of

    value                         fixed (`elu` is short for {kind: elu})
    [a, b, {kind: c, ...}]        a choice
    {low: 1, high: 64, log: true} a number
    any                           whatever the type allows
    solve, {solve: [low, high]}   a size: solved for the budget, sampled without one
    {solve: [a, {kind: b}]}       a choice made for the budget: the first that meets it; asked without one

A key that is left out keeps its default; `"*": any` in a mapping frees all the keys it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ctxpeft.errors import SpecError, did_you_mean, gathered
from ctxpeft.search.space.derive import default_node, derive_field, derive_record, record
from ctxpeft.search.space.nodes import (
    Fixed,
    Node,
    Options,
    Range,
    Record,
    Size,
    Solved,
    options,
    unique_labels,
)
from ctxpeft.search.space.types import FieldType, field_type
from ctxpeft.spec.explain import dotted, wrong_kind
from ctxpeft.spec.mistakes import misspelt
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.registry import Kinds
from ctxpeft.spec.yaml_lines import Document

Path_ = tuple[str | int, ...]
REST = "*"


class PatternParser:
    """Patterns of one document as nodes; every error names file, line and key."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def fail(self, path: Path_, message: str) -> SpecError:
        """The error to raise about a key path."""
        return SpecError(f"{self.document.name}:{self.document.line(path)}: {dotted(path)}: {message}")

    def template(self, pattern: Any, path: Path_) -> Record:
        """One module template."""
        if pattern == "any":
            return derive_record(ModuleSpec)
        if not isinstance(pattern, dict):
            raise self.fail(
                path,
                f"expected a module such as {{placement: outside, memory: ...}} or any, found {_shown(pattern)}",
            )
        return self._record(ModuleSpec, pattern, path)

    def _field(self, name: str, field: FieldInfo, pattern: Any, path: Path_) -> Node:
        if pattern == "any":
            return derive_field(name, field)
        return self._pattern(name, field, field_type(field), pattern, path)

    def _pattern(self, name: str, field: FieldInfo, kind: FieldType, pattern: Any, path: Path_) -> Node:
        if isinstance(pattern, list):
            if not pattern:
                raise self.fail(path, "a choice needs at least one value")
            nodes = gathered(
                partial(self._choice, name, field, kind, item, (*path, i)) for i, item in enumerate(pattern)
            )
            flat = [leaf for node in nodes for leaf in _flat(node)]
            return options(unique_labels(flat))
        if pattern == "solve" or (isinstance(pattern, dict) and set(pattern) == {"solve"}):
            if isinstance(pattern, dict) and isinstance(pattern["solve"], list) and kind.number is not int:
                return self._solved(name, field, kind, pattern["solve"], path)
            return self._size(kind, pattern, path)
        if isinstance(pattern, dict) and "low" in pattern and kind.number is not None:
            return self._range(kind, pattern, path)
        if kind.family is not None and pattern is not None:
            return self._block(kind.family, pattern, path)
        if kind.model is not None and isinstance(pattern, dict):
            return self._record(kind.model, pattern, path)
        return self._value(kind, pattern, path)

    def _choice(self, name: str, field: FieldInfo, kind: FieldType, item: Any, path: Path_) -> Node:
        if isinstance(item, list):
            return self._value(kind, item, path)
        return self._field(name, field, item, path)

    def _block(self, choice: Kinds, pattern: Any, path: Path_) -> Node:
        known = choice.installed()
        data = {"kind": pattern} if isinstance(pattern, str) else pattern
        if not isinstance(data, dict) or "kind" not in data:
            raise self.fail(
                path,
                f"expected a kind of {choice.family} or a mapping with a 'kind', found {_shown(pattern)}",
            )
        wanted = (
            list(known)
            if data["kind"] == "any"
            else data["kind"]
            if isinstance(data["kind"], list)
            else [data["kind"]]
        )
        nodes = gathered(partial(self._kind, choice, known, kind, data, path) for kind in wanted)
        return options(unique_labels(nodes))

    def _kind(
        self,
        choice: Kinds,
        known: Mapping[str, type[BaseModel]],
        kind: Any,
        data: dict[str, Any],
        path: Path_,
    ) -> Node:
        """One kind of a block."""
        if not isinstance(kind, str) or kind not in known:
            raise self.fail(path, wrong_kind(choice, kind))
        return self._record(known[kind], {**data, "kind": kind}, path)

    def _record(self, cls: type[BaseModel], data: dict[str, Any], path: Path_) -> Record:
        unknown = [str(key) for key in data if key != REST and key not in cls.model_fields]
        left_out = [
            name
            for name in cls.model_fields
            if name not in data and not any(misspelt(key, name) for key in unknown)
        ]
        keys = [*data, *left_out]
        made = dict(
            zip(keys, gathered(partial(self._key, cls, key, data, path) for key in keys), strict=True)
        )
        return record(cls, {name: made[name] for name in cls.model_fields})

    def _key(self, cls: type[BaseModel], key: str, data: dict[str, Any], path: Path_) -> Node:
        """What stands at one key of a record: what is written, whatever the type allows, or the default."""
        field = cls.model_fields.get(key)
        if key == REST:
            if data[REST] != "any":
                raise self.fail((*path, REST), "expected any: it frees the keys that are left out")
            return Fixed(data[REST])
        if field is None:
            near = did_you_mean(str(key), cls.model_fields)
            raise self.fail((*path, key), f"unknown key '{key}'{near}")
        if key == "kind":
            return Fixed(data["kind"])
        if key in data:
            return self._field(key, field, data[key], (*path, key))
        if REST in data:
            return derive_field(key, field)
        if field.is_required():
            raise self.fail(path, f"'{key}' is missing; give a value, a choice, or any")
        return default_node(field)

    def _solved(self, name: str, field: FieldInfo, kind: FieldType, items: list[Any], path: Path_) -> Solved:
        """What the budget chooses among; a question inside a branch could not be asked."""
        node = self._pattern(name, field, kind, items, (*path, "solve"))
        if not isinstance(node, Options) or not all(_settled(branch) for _, branch in node.branches):
            raise self.fail(
                path, "a choice made for the budget takes two values or more, without any choice in them"
            )
        return Solved(node)

    def _size(self, kind: FieldType, pattern: Any, path: Path_) -> Size:
        if kind.number is not int:
            raise self.fail(
                path, "only a whole number such as count, rank, width or scope.layers.last can be solved"
            )
        if isinstance(pattern, dict):
            bounds = pattern["solve"]
            if not (
                isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(b, int) for b in bounds)
            ):
                raise self.fail(path, "expected {solve: [low, high]} with two whole numbers")
            low, high = bounds
        elif kind.domain is None:
            raise self.fail(path, "this key declares no domain: write {solve: [low, high]}")
        else:
            low, high = int(kind.domain.low), int(kind.domain.high)
        if not 1 <= low <= high:
            raise self.fail(path, f"expected 1 <= low <= high, found {low} and {high}")
        return Size(low, high)

    def _range(self, kind: FieldType, pattern: dict[str, Any], path: Path_) -> Range:
        for key in pattern:
            if key not in ("low", "high", "log"):
                raise self.fail(
                    (*path, key), f"unknown key '{key}'{did_you_mean(str(key), ('low', 'high', 'log'))}"
                )
        low, high, log = pattern["low"], pattern.get("high", "missing"), pattern.get("log", False)
        if not _number(low) or not _number(high) or not isinstance(log, bool) or low > high:
            raise self.fail(path, "expected {low: number, high: number, log: true or false} with low <= high")
        if log and low <= 0:
            raise self.fail(path, "a log scale needs low > 0")
        self._value(kind, low, path)
        self._value(kind, high, path)
        return Range(low, high, log, kind.number is int)

    def _value(self, kind: FieldType, value: Any, path: Path_) -> Fixed:
        if kind.literals and isinstance(value, str) and value not in kind.literals:
            raise self.fail(
                path, f"{value!r} is not valid here{did_you_mean(value, map(str, kind.literals))}"
            )
        try:
            kind.check(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise self.fail(
                path, f"{_shown(value)} is not valid here: {message[:1].lower()}{message[1:]}"
            ) from None
        return Fixed(value)


def _flat(node: Node) -> list[Node]:
    """A choice among choices is one choice."""
    return (
        [leaf for _, branch in node.branches for leaf in _flat(branch)]
        if isinstance(node, Options)
        else [node]
    )


def _settled(node: Node) -> bool:
    """Whether nothing in a node is open."""
    if isinstance(node, Record):
        return all(_settled(child) for _, child in node.fields)
    return isinstance(node, Fixed)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return (
        "nothing"
        if value is None
        else "a mapping"
        if isinstance(value, dict)
        else "a list"
        if isinstance(value, list)
        else repr(value)
    )

"""The tree a space is: what is fixed, what is chosen, what is a number, what the budget solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Label = str | int | float | bool | None


@dataclass(frozen=True)
class Fixed:
    """One value: no dimension."""

    value: Any


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included."""

    low: float
    high: float
    log: bool
    integer: bool


@dataclass(frozen=True)
class Size:
    """A size: solved to meet the budget where there is one (one a module), else sampled on a log scale."""

    low: int
    high: int

    def as_range(self) -> Range:
        """The dimension it is when nothing is solved for."""
        return Range(self.low, self.high, log=True, integer=True)


@dataclass(frozen=True)
class Options:
    """A choice among branches, each with a label that is unique here."""

    branches: tuple[tuple[Label, Node], ...]


@dataclass(frozen=True)
class Solved:
    """A choice the budget makes: the first branch that meets it; asked without one. The branches hold no question."""

    choice: Options


@dataclass(frozen=True)
class Record:
    """A mapping of the spec: a module, a block of one kind, a query, a scope. Fields stand in order of decision."""

    cls: type[BaseModel]
    fields: tuple[tuple[str, Node], ...]


Node = Fixed | Range | Size | Options | Solved | Record


@dataclass(frozen=True)
class Position:
    """One place in a variant's list of modules: named templates to choose from; an optional one may be absent."""

    templates: tuple[tuple[str, Record], ...]
    optional: bool


def options(branches: list[tuple[Label, Node]]) -> Node:
    """A choice, or the branch itself when there is only one."""
    return branches[0][1] if len(branches) == 1 else Options(tuple(branches))


def label_of(node: Node) -> Label:
    """What a branch is called when its file gives it no name: its value, or its kind with what else is fixed in it."""
    if isinstance(node, Fixed):
        value = node.value
        return value if isinstance(value, str | int | float | bool) or value is None else _flow(value)
    if isinstance(node, Range | Size):
        return f"{node.low:g}..{node.high:g}"
    if isinstance(node, Solved):
        return label_of(node.choice)
    if isinstance(node, Options):
        return "|".join(str(label) for label, _ in node.branches)
    kind = next((n.value for f, n in node.fields if f == "kind" and isinstance(n, Fixed)), node.cls.__name__)
    parts = [
        f"{name}={label_of(child)}"
        for name, child in node.fields
        if name != "kind" and isinstance(child, Fixed | Record) and not _is_default(node.cls, name, child)
    ]
    return (
        " ".join([str(kind), *parts]) if node.cls.model_fields.get("kind") else ",".join(parts) or "default"
    )


def unique_labels(nodes: list[Node]) -> list[tuple[Label, Node]]:
    """Branches with labels told apart: the short one (the kind) where it is unique, else the long one."""
    long = [label_of(node) for node in nodes]
    short = [
        str(label).split(" ")[0] if isinstance(node, Record) else label
        for label, node in zip(long, nodes, strict=True)
    ]
    chosen = [s if short.count(s) == 1 else label for s, label in zip(short, long, strict=True)]
    seen: set[str] = set()
    branches: list[tuple[Label, Node]] = []
    for index, (label, node) in enumerate(zip(chosen, nodes, strict=True)):
        key = repr(label)
        branches.append((f"{label} #{index + 1}" if key in seen else label, node))
        seen.add(key)
    return branches


def _is_default(cls: type[BaseModel], name: str, node: Node) -> bool:
    field = cls.model_fields[name]
    if field.is_required():
        return False
    default = field.get_default(call_default_factory=True)
    if isinstance(node, Fixed):
        return bool(node.value == default)
    return isinstance(node, Record) and all(
        _is_default(node.cls, f, n) for f, n in node.fields if f != "kind"
    )


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{k} {_flow(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "[" + ",".join(str(v) for v in value) + "]"
    return str(value)

"""The conditional tree in words, and how many structures it holds."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from ctxpeft.search.space.nodes import (
    Fixed,
    Node,
    Options,
    Position,
    Range,
    Record,
    Size,
    Solved,
    label_of,
)


def lines(positions: tuple[Position, ...]) -> Iterator[str]:
    """The tree, one line a question or fixed value that is not the default; children are indented."""
    for index, position in enumerate(positions):
        if len(positions) > 1:
            yield f"module {index + 1}" + (" (may be absent)" if position.optional else "")
        indent = "  " if len(positions) > 1 else ""
        for name, template in position.templates:
            yield f"{indent}{name}: {structures(template):,} structures"
            yield from _record(template, indent + "  ")


def size(positions: tuple[Position, ...]) -> int:
    """Structures of the whole space: choices alone, numbers and sizes not counted, before the legality table."""
    total = 1
    for position in positions:
        here = sum(structures(template) for _, template in position.templates)
        total *= here + (1 if position.optional else 0)
    return total


def structures(node: Node) -> int:
    """Ways to answer the choices below a node."""
    if isinstance(node, Options):
        return sum(structures(branch) for _, branch in node.branches)
    if isinstance(node, Record):
        total = 1
        for _, child in node.fields:
            total *= structures(child)
        return total
    return 1


def _record(node: Record, indent: str) -> Iterator[str]:
    for name, child in node.fields:
        if isinstance(child, Fixed):
            if name != "kind" and not _default(node.cls, name, child.value):
                yield f"{indent}{name}: {label_of(child)}"
        elif isinstance(child, Record):
            kind = [f.value for n, f in child.fields if n == "kind" and isinstance(f, Fixed)]
            inner = list(_record(child, indent + "  "))
            if inner or (kind and not _same_kind(node.cls, name, kind[0])):
                yield f"{indent}{name}:{' ' + str(kind[0]) if kind else ''}"
                yield from inner
        elif isinstance(child, Options):
            yield from _choice(name, child, indent)
        elif isinstance(child, Solved):
            labels = ", ".join(str(label) for label, _ in child.choice.branches)
            yield f"{indent}{name} in {{{labels}}}, the first that meets the budget (asked without one)"
        else:
            yield f"{indent}{name} {_span(child)}"


def _choice(name: str, node: Options, indent: str) -> Iterator[str]:
    nested = [(label, branch) for label, branch in node.branches if not isinstance(branch, Fixed)]
    below = {label: list(_branch(branch, indent + "    ")) for label, branch in nested}
    plain = [str(label) for label, _ in node.branches if not below.get(label)]
    yield f"{indent}{name} in {{{', '.join(plain)}}}" if plain else f"{indent}{name} one of"
    for label, inner in below.items():
        if inner:
            yield f"{indent}  | {label}"
            yield from inner


def _branch(branch: Node, indent: str) -> Iterator[str]:
    if isinstance(branch, Record):
        yield from _record(branch, indent)
    elif isinstance(branch, Range | Size):
        yield f"{indent}{_span(branch)}"


def _span(node: Range | Size) -> str:
    if isinstance(node, Size):
        return f"in {node.low}..{node.high}, solved for the budget (sampled without one)"
    kind = "whole number " if node.integer else ""
    return f"{kind}in {node.low:g}..{node.high:g}{', log scale' if node.log else ''}"


def _default(cls: type[BaseModel], name: str, value: object) -> bool:
    field = cls.model_fields[name]
    return not field.is_required() and bool(field.get_default(call_default_factory=True) == value)


def _same_kind(cls: type[BaseModel], name: str, kind: object) -> bool:
    field = cls.model_fields[name]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return (default.get("kind") if isinstance(default, dict) else getattr(default, "kind", None)) == kind

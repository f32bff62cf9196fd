"""The part of a space that a model can host: a stack that it does not have is no alternative."""

from __future__ import annotations

from collections.abc import Sequence

from ctxpeft.errors import SpecError
from ctxpeft.search.space.nodes import Fixed, Label, Node, Options, Position, Record, Solved, options
from ctxpeft.spec.scope import Scope


def hosted(positions: tuple[Position, ...], stacks: Sequence[str]) -> tuple[Position, ...]:
    """The space without the stacks that a model lacks; of a model's only stack the name is one of `all`.

    Raises SpecError naming a template that has no stack of the model.
    """
    return tuple(
        Position(
            tuple((name, _template(name, node, stacks)) for name, node in place.templates), place.optional
        )
        for place in positions
    )


def _template(name: str, node: Record, stacks: Sequence[str]) -> Record:
    left = _record(node, stacks)
    if left is None:
        raise SpecError(
            f"template '{name}': scope.stack names only stacks that the model does not have; "
            f"it has {' and '.join(stacks)}"
        )
    return left


def _record(node: Record, stacks: Sequence[str]) -> Record | None:
    fields: list[tuple[str, Node]] = []
    for name, child in node.fields:
        stack = issubclass(node.cls, Scope) and name == "stack"
        left = _stack(child, stacks) if stack else _left(child, stacks)
        if left is None:
            return None
        fields.append((name, left))
    return (
        node
        if all(a is b for (_, a), (_, b) in zip(fields, node.fields, strict=True))
        else Record(node.cls, tuple(fields))
    )


def _left(node: Node, stacks: Sequence[str]) -> Node | None:
    """What is left of a node; the node itself where nothing was taken from it."""
    if isinstance(node, Record):
        return _record(node, stacks)
    if isinstance(node, Options):
        return _options(node, [(label, _left(branch, stacks)) for label, branch in node.branches])
    if isinstance(node, Solved):
        return _solved(node, _left(node.choice, stacks))
    return node


def _stack(node: Node, stacks: Sequence[str]) -> Node | None:
    if isinstance(node, Fixed):
        return node if node.value in ("all", *stacks) else None
    if isinstance(node, Solved):
        return _solved(node, _stack(node.choice, stacks))
    if not isinstance(node, Options):
        return node
    left = [(label, _stack(branch, stacks)) for label, branch in node.branches]
    if len(stacks) == 1 and any(isinstance(b, Fixed) and b.value == "all" for _, b in left):
        left = [(label, b if isinstance(b, Fixed) and b.value == "all" else None) for label, b in left]
    return _options(node, left)


def _options(node: Options, left: list[tuple[Label, Node | None]]) -> Node | None:
    branches = [(label, branch) for label, branch in left if branch is not None]
    same = len(branches) == len(node.branches)
    if same and all(a is b for (_, a), (_, b) in zip(branches, node.branches, strict=True)):
        return node
    return options(branches) if branches else None


def _solved(node: Solved, left: Node | None) -> Node | None:
    if left is node.choice:
        return node
    return Solved(left) if isinstance(left, Options) else left

"""From the tree to one design: questions are asked in order, and only those whose parent makes them exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from ctxpeft.search.space.chooser import Chooser, RandomChooser
from ctxpeft.search.space.kept import broken, fewest
from ctxpeft.search.space.nodes import Fixed, Label, Node, Options, Position, Range, Record, Size, Solved
from ctxpeft.search.space.partial import (
    Partial,
    UndecidedError,
    broken_row,
    broken_rule,
    certain,
    preview,
    resolve,
)
from ctxpeft.spec.guide import Facts

FINEST = ("count", "rank", "width")


class InfeasibleError(Exception):
    """A design that cannot be, with the reason; `rule` groups equal reasons in the report. `equation`: the design,
    where there is one.
    """

    def __init__(self, rule: str, reason: str, equation: str = "") -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason
        self.equation = equation


@dataclass
class Free:
    """A size the budget will decide: where it is written, and between which bounds."""

    holder: dict[str, Any]
    key: str
    low: int
    high: int
    name: str

    def put(self, value: int) -> None:
        """Write the size into the module's data."""
        self.holder[self.key] = value


@dataclass
class Either:
    """A choice the budget will make: where it is written, and the values, the most wanted first."""

    holder: dict[str, Any]
    key: str
    values: list[Any]

    def put(self, index: int) -> None:
        """Write a value into the module's data."""
        self.holder[self.key] = self.values[index]


@dataclass
class Draft:
    """Modules as plain data. `free[i]` is the size of module i that is left to the budget, if it has one; `either[i]`
    are the choices in it that are."""

    modules: list[dict[str, Any]] = field(default_factory=list)
    free: list[Free | None] = field(default_factory=list)
    either: list[list[Either]] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)


def walk(positions: tuple[Position, ...], chooser: Chooser, solve: bool, guide: Facts | None = None) -> Draft:
    """One design. With `solve`, the finest size of each module is left free; every other size is a question.

    With `guide`, what is known of model and data, alternatives that break a rule of the construction guide there are
    not asked about while others remain.

    Raises InfeasibleError, with the legality table's reason, where every remaining alternative is illegal; with the
    rule, where a module breaks more rules of the guide than its template must.
    """
    draft = Draft()
    for index, position in enumerate(positions):
        prefix = f"{index + 1}." if len(positions) > 1 else ""
        if position.optional and chooser.option(f"{prefix}present", [False, True]) is False:
            continue
        names = [name for name, _ in position.templates]
        name = names[0] if len(names) == 1 else str(chooser.option(f"{prefix}template", names))
        module = _Module(chooser, solve, guide)
        record = dict(position.templates)[name]
        data = module.record(record, f"{prefix}{name}")
        if guide is not None:
            _keep(record, data, f"{prefix}{name}", solve, guide)
        draft.modules.append(data)
        draft.free.append(module.settle_sizes())
        draft.either.append(module.either)
        draft.templates.append(name)
    return draft


def _keep(record: Record, data: dict[str, Any], path: str, solve: bool, guide: Facts) -> None:
    """Raises InfeasibleError where a module breaks more rules of the guide than others of its template."""

    def draw(seed: int) -> dict[str, Any] | None:
        try:
            return _Module(RandomChooser(seed), solve, guide).record(record, path)
        except InfeasibleError:
            return None

    rules = broken(data, guide)
    if rules and len(rules) > fewest(record, solve, guide, draw):
        first = rules[0]
        raise InfeasibleError(first.id, f"{path}: {first.statement} ({first.key})")


class _Module:
    """The walk through one module; `root` is what the legality table sees so far."""

    def __init__(self, chooser: Chooser, solve: bool, guide: Facts | None) -> None:
        self.chooser = chooser
        self.solve = solve
        self.guide = guide
        self.root: Partial | None = None
        self.sizes: list[tuple[Free, Size]] = []
        self.either: list[Either] = []

    def record(self, node: Record, path: str, parent: Partial | None = None, key: str = "") -> dict[str, Any]:
        """A record's data; `parent` and `key` say where its partial hangs, the module itself has neither."""
        partial = Partial(node.cls)
        if parent is None:
            self.root = partial
        else:
            parent.decide(key, partial)
        for name, child in node.fields:
            if certain(node.cls, name, child):
                partial.decide(name, preview(child))
        data: dict[str, Any] = {}
        for name, child in node.fields:
            data[name] = self._value(child, f"{path}.{name}", partial, name, data)
        return data

    def _value(self, node: Node, path: str, parent: Partial, name: str, data: dict[str, Any]) -> Any:
        if isinstance(node, Fixed):
            if certain(parent.of, name, node):
                parent.decide(name, node.value)
            else:
                assert self.root is not None
                resolve(self.root, parent, name)
            return node.value
        if isinstance(node, Record):
            return self.record(node, path, parent, name)
        if isinstance(node, Range):
            value = (
                self.chooser.number(path, node)
                if self._open(node, parent, name)
                else _default(parent.of, name)
            )
            parent.decide(name, value)
            return value
        if isinstance(node, Size):
            self.sizes.append((Free(data, name, node.low, node.high, path), node))
            parent.decide(name, node.low)
            return node.low
        if isinstance(node, Solved):
            if self.solve:
                return self._left_to_the_budget(node.choice, path, parent, name, data)
            node = node.choice
        label, branch = self._choose(node, path, parent, name, data)
        return self._value(
            branch, path if isinstance(branch, Fixed) else f"{path}={label}", parent, name, data
        )

    def _choose(
        self, node: Options, path: str, parent: Partial, name: str, data: dict[str, Any]
    ) -> tuple[Label, Node]:
        """Ask among the branches that are left; no question for one."""
        legal = self._left(node, path, parent, name, data)
        if len(legal) == 1:
            return legal[0]
        labels = [label for label, _ in legal]
        if len(legal) < len(node.branches):
            path = f"{path}{{{'|'.join(str(label) for label in labels)}}}"
        chosen = self.chooser.option(path, labels)
        return next(
            (label, branch) for label, branch in legal if label == chosen and type(label) is type(chosen)
        )

    def _left_to_the_budget(
        self, node: Options, path: str, parent: Partial, name: str, data: dict[str, Any]
    ) -> Any:
        """Remember the branches that are left; meanwhile the first one stands there."""
        legal = self._left(node, path, parent, name, data)
        values = [self._value(branch, path, parent, name, data) for _, branch in reversed(legal)][::-1]
        self.either.append(Either(data, name, values))
        return values[0]

    def _left(
        self, node: Options, path: str, parent: Partial, name: str, data: dict[str, Any]
    ) -> list[tuple[Label, Node]]:
        """The branches that the legality table, the guide and the record's own checks leave."""
        assert self.root is not None
        legal: list[tuple[Label, Node]] = []
        wise: list[tuple[Label, Node]] = []
        reason = None
        for label, branch in node.branches:
            parent.undecide(name)
            if certain(parent.of, name, branch):
                parent.decide(name, preview(branch))
            row = broken_row(self.root)
            reason = reason or row
            if row is None:
                legal.append((label, branch))
                if self.guide is not None and broken_rule(self.root, self.guide) is None:
                    wise.append((label, branch))
        parent.undecide(name)
        if not legal:
            assert reason is not None
            raise InfeasibleError(reason.id, f"{path}: {reason.reason}")
        legal = wise or legal
        if any(label is None for label, _ in legal):
            legal = [pair for pair in legal if _accepted(parent.of, data, name, pair[1])] or legal
        return self._distinct(legal, name)

    def _distinct(self, legal: list[tuple[Label, Node]], name: str) -> list[tuple[Label, Node]]:
        """Without branches that are the same method here."""
        same = self._same_sharing(name)
        first = next((pair for pair in legal if pair[0] in same), None)
        return [pair for pair in legal if pair[0] not in same or pair is first]

    def _same_sharing(self, name: str) -> tuple[str, ...]:
        """The values of `per` and `phi_per` between which nothing differs: there is one head, or nothing to share."""
        assert self.root is not None
        in_a_layer = ("query_head", "kv_head", "head", "layer")
        if name == "phi_per":
            phi = self.root.decided("feature_map", absent=...)
            if phi is None:
                return (*in_a_layer, "model")
            if phi is not ... and not _may_have_parameters(phi):
                return in_a_layer if phi.random else (*in_a_layer, "model")
        one_head = self.root.decided("site") not in (None, "head")
        return in_a_layer if one_head and name in ("per", "phi_per") else ()

    def _open(self, node: Range, parent: Partial, name: str) -> bool:
        """Whether the table leaves a number any freedom (length_bias has none without compete_length)."""
        assert self.root is not None
        for bound in (node.low, node.high):
            parent.decide(name, bound)
            if broken_row(self.root) is None:
                return True
        return parent.of.model_fields[name].is_required()

    def settle_sizes(self) -> Free | None:
        """Ask for every size but the one the budget solves."""
        free = None
        if self.solve and self.sizes:
            order = {name: i for i, name in enumerate(FINEST)}
            free = min((f for f, _ in self.sizes), key=lambda f: order.get(f.key, len(FINEST)))
        for size, node in self.sizes:
            if size is not free:
                size.put(int(self.chooser.number(size.name, node.as_range())))
        return free


def _may_have_parameters(phi: Any) -> bool:
    try:
        return bool(phi.has_parameters())
    except UndecidedError:
        return True


def _default(cls: type[BaseModel], name: str) -> Any:
    return cls.model_fields[name].get_default(call_default_factory=True)


def _accepted(cls: type[BaseModel], data: dict[str, Any], name: str, branch: Node) -> bool:
    """Whether the record's own checks accept the branch beside what is decided; they speak only of whole records."""
    if not isinstance(branch, Fixed | Range | Size) or not all(
        key in data or key == name for key in cls.model_fields
    ):
        return True
    value = branch.value if isinstance(branch, Fixed) else branch.low
    try:
        cls.model_validate({**data, name: value})
    except ValidationError:
        return False
    return True

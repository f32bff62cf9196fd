"""A module that is still being decided, asked by the legality table: a row speaks only when it is certain."""

from __future__ import annotations

import types
from typing import Any

from pydantic import BaseModel

from ctxpeft.search.space.nodes import Fixed, Node, Record
from ctxpeft.spec.guide import RULES, Facts, Rule
from ctxpeft.spec.legality import TABLE, Row
from ctxpeft.spec.module import usual_merge, usual_normalizer, usual_source


class UndecidedError(Exception):
    """A row looked at a field that has no value yet."""


class Partial:
    """Stands for a spec of class `cls` of which some fields are decided; methods run as the spec's own."""

    def __init__(self, cls: type[BaseModel]) -> None:
        self.__dict__["_cls"] = cls
        self.__dict__["_values"] = {}

    @property
    def of(self) -> type[BaseModel]:
        """The class it stands for."""
        cls: type[BaseModel] = self.__dict__["_cls"]
        return cls

    def decided(self, name: str, absent: Any = None) -> Any:
        """A field's value, or `absent` while it has none."""
        return self._values.get(name, absent)

    def decide(self, name: str, value: Any) -> None:
        """Give a field its value, another Partial for a nested spec."""
        self._values[name] = value

    def undecide(self, name: str) -> None:
        """Take a field's value back."""
        self._values.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        cls = self.of
        if name in cls.model_fields:
            raise UndecidedError(name)
        found = getattr(cls, name)
        return types.MethodType(found, self) if isinstance(found, types.FunctionType) else found


def preview(node: Node) -> Any:
    """What is certain about a node before anything in it is chosen; None where nothing is."""
    if isinstance(node, Fixed):
        return node.value
    if isinstance(node, Record):
        partial = Partial(node.cls)
        for name, child in node.fields:
            if certain(node.cls, name, child):
                partial.decide(name, preview(child))
        return partial
    return None


def certain(cls: type[BaseModel], name: str, node: Node) -> bool:
    """Whether a preview of the node says anything.

    A key left at None whose type is a set of names (merge, normalizer, query.source) is filled in by the module itself
    from the others, so it is not certain.
    """
    if isinstance(node, Fixed):
        return node.value is not None or (name, cls.__name__) not in RESOLVED_LATER
    return isinstance(node, Record)


RESOLVED_LATER = {("merge", "ModuleSpec"), ("normalizer", "ModuleSpec"), ("source", "QuerySpec")}


def resolve(module: Partial, parent: Partial, name: str) -> None:
    """Decide a key that was left out as the module itself will, once what it depends on is decided."""
    try:
        if name == "merge":
            parent.decide(name, usual_merge(module.placement))
        elif name == "source":
            parent.decide(name, usual_source(module.site))
        else:
            parent.decide(name, usual_normalizer(module.placement, module.memory))
    except UndecidedError:
        return


def broken_rule(module: Partial, facts: Facts) -> Rule | None:
    """The first rule of the guide, `must` or `should`, that the module breaks whatever else is decided."""
    for rule in RULES:
        try:
            if rule.severity != "consider" and rule.broken(module, facts):  # type: ignore[arg-type]
                return rule
        except UndecidedError:
            continue
    return None


def broken_row(module: Partial) -> Row | None:
    """The first row of the legality table that the module breaks whatever else is decided."""
    for row in TABLE:
        try:
            if row.broken(module):  # type: ignore[arg-type]
                return row
        except UndecidedError:
            continue
    return None

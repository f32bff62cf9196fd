"""`any`: the part of the tree that a type alone gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ctxpeft.search.space.nodes import Fixed, Label, Node, Options, Range, Record, Size, options
from ctxpeft.search.space.types import FieldType, field_type
from ctxpeft.spec.module import ModuleSpec

SIZES = ("count", "rank", "width")
MODULE_ORDER = (
    "placement",
    "site",
    "memory",
    "merge",
    "feature_map",
    "phi_per",
    "normalizer",
    "query",
    "gate",
    "length_bias",
    "scope",
    "projected",
    "learning_rate_ratio",
)


def derive_field(name: str, field: FieldInfo) -> Node:
    """Everything the field's type allows; its default where the type declares no domain."""
    kind = field_type(field)
    node = _derive(name, kind)
    return default_node(field) if node is None else node


def derive_record(cls: type[BaseModel]) -> Record:
    """A spec with every field free."""
    return record(cls, {name: _derive_or_kind(name, field) for name, field in cls.model_fields.items()})


def record(cls: type[BaseModel], fields: Mapping[str, Node]) -> Record:
    """A record with its fields in order of decision: what is fixed first, optional parts last."""
    if issubclass(cls, ModuleSpec):
        return Record(cls, tuple((name, fields[name]) for name in MODULE_ORDER))
    names = sorted(fields, key=lambda n: field_type(cls.model_fields[n]).optional)
    return Record(cls, tuple((name, fields[name]) for name in names))


def default_node(field: FieldInfo) -> Node:
    """The default of a field, blocks as records so that their methods can be asked."""
    return default_value(field_type(field), field.get_default(call_default_factory=True))


def default_value(kind: FieldType, value: Any) -> Node:
    """A value as a node without dimensions."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping) and kind.family is not None:
        return fixed_record(kind.family.installed()[str(value["kind"])], value)
    if isinstance(value, Mapping) and kind.model is not None:
        return fixed_record(kind.model, value)
    return Fixed(value)


def fixed_record(cls: type[BaseModel], data: Mapping[str, Any]) -> Record:
    """A record whose every field is fixed, by `data` or by default."""
    nodes = {
        name: default_value(field_type(field), data[name]) if name in data else default_node(field)
        for name, field in cls.model_fields.items()
    }
    return record(cls, nodes)


def _derive_or_kind(name: str, field: FieldInfo) -> Node:
    return Fixed(field.default) if name == "kind" else derive_field(name, field)


def _derive(name: str, kind: FieldType) -> Node | None:
    branches: list[tuple[Label, Node]] = []
    if kind.literals:
        branches += [(value, Fixed(value)) for value in kind.literals]
    if kind.boolean:
        branches += [(False, Fixed(False)), (True, Fixed(True))]
    if kind.family is not None:
        branches += [(k, derive_record(cls)) for k, cls in kind.family.installed().items() if _derivable(cls)]
    if kind.number is not None and kind.domain is not None:
        d = kind.domain
        integer = kind.number is int
        sized = integer and name in SIZES
        number: Node = Size(int(d.low), int(d.high)) if sized else Range(d.low, d.high, d.log, integer)
        branches.append(("given", number))
    if not branches and kind.model is not None:
        return derive_record(kind.model)
    if not branches:
        return None
    if kind.optional and not kind.literals:
        branches.insert(0, (None, Fixed(None)))
    return (
        options(branches) if len(branches) > 1 or not isinstance(branches[0][1], Options) else branches[0][1]
    )


def _derivable(cls: type[BaseModel]) -> bool:
    """Whether a type alone gives every required field a value; a text, for one, only a space file can give."""
    fields = {name: field for name, field in cls.model_fields.items() if name != "kind"}
    return all(not f.is_required() or _derive(name, field_type(f)) is not None for name, f in fields.items())

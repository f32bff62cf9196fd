"""What stands at a location of a spec class: its valid keys, or the block family that is chosen there."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ctxpeft.spec.registry import Kinds, kinds


def keys_at(root: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The valid keys of the model that a location of pydantic (union tags included) points into."""
    found = _at(root, location)
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []


def family_at(root: type[BaseModel], location: Sequence[str | int]) -> str | None:
    """The block family chosen at a location of pydantic, or None where no block is chosen."""
    if not location:
        return None
    owner = _at(root, location[:-1])
    if not (isinstance(owner, type) and issubclass(owner, BaseModel)):
        return None
    field = owner.model_fields.get(str(location[-1]))
    return None if field is None else _family(field)


def _at(root: type[BaseModel], location: Sequence[str | int]) -> Any:
    current: Any = root
    choices: dict[str, Any] = {}
    for part in location:
        if part in choices:
            current, choices = choices[str(part)], {}
            continue
        choices = {}
        if isinstance(part, int):
            continue
        if (
            not (isinstance(current, type) and issubclass(current, BaseModel))
            or part not in current.model_fields
        ):
            tagged = [c for c in _classes(current) if c.__name__ == part]
            current = tagged[0] if tagged else current
            continue
        field = current.model_fields[part]
        family = _family(field)
        if family:
            choices = dict(kinds(family))
            continue
        candidates = _classes(field.annotation)
        current = candidates[0] if len(candidates) == 1 else field.annotation
    return current


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as list[X], X | None or Annotated[X, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _classes(inner)]


def _family(field: FieldInfo) -> str | None:
    """The block family of a field declared as Annotated[X, Kinds(...)], also with `| None`."""
    marked = next((m.family for m in field.metadata if isinstance(m, Kinds)), None)
    return marked or _family_in(field.annotation)


def _family_in(annotation: Any) -> str | None:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((f for f in map(_family_in, typing.get_args(annotation)) if f), None)
    return next((m.family for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Kinds)), None)

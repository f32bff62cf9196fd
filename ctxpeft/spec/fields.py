"""What stands at a location of a spec class: its valid keys, or the block family that is chosen there."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ctxpeft.spec.registry import Kinds, choice_of


def keys_at(root: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The valid keys of the model that a location of pydantic (union tags included) points into."""
    found = _at(root, location)
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []


def choice_at(root: type[BaseModel], location: Sequence[str | int]) -> Kinds | None:
    """Which kinds can be chosen at a location of pydantic, or None where no block is chosen."""
    if not location:
        return None
    owner = _at(root, location[:-1])
    if not (isinstance(owner, type) and issubclass(owner, BaseModel)):
        return None
    field = owner.model_fields.get(str(location[-1]))
    return None if field is None else choice_of(field)


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
        choice = choice_of(field)
        if choice:
            choices = dict(choice.installed())
            continue
        candidates = _classes(field.annotation)
        current = candidates[0] if len(candidates) == 1 else field.annotation
    return current


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as list[X], X | None or Annotated[X, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _classes(inner)]

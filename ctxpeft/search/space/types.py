"""What a field of the spec can be: read off its annotation, once, for every use the search makes of it."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from ctxpeft.spec.base import Domain
from ctxpeft.spec.registry import Kinds


@dataclass(frozen=True)
class FieldType:
    """The alternatives of one field: literals, kinds of a family, a nested spec, a number with its domain, or null."""

    optional: bool = False
    literals: tuple[Any, ...] = ()
    boolean: bool = False
    family: Kinds | None = None
    model: type[BaseModel] | None = None
    number: type[int] | type[float] | None = None
    domain: Domain | None = None
    annotation: Any = None

    def check(self, value: Any) -> Any:
        """The value as the spec reads it; pydantic's ValidationError if it is none."""
        return TypeAdapter(self.annotation).validate_python(value)


def field_type(field: FieldInfo) -> FieldType:
    """The alternatives of a spec's field."""
    annotation = field.annotation
    whole = Annotated[annotation, *field.metadata] if field.metadata else annotation
    found: dict[str, Any] = {"annotation": whole}
    _read(annotation, field.metadata, found)
    return FieldType(**found)


def _read(annotation: Any, metadata: list[Any], found: dict[str, Any]) -> None:
    for extra in metadata:
        if isinstance(extra, Kinds):
            found["family"] = extra
            return
        if isinstance(extra, Domain):
            found["domain"] = extra
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extras = typing.get_args(annotation)
        _read(inner, extras, found)
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            _read(part, [], found)
    elif origin is Literal:
        found["literals"] = (*found.get("literals", ()), *typing.get_args(annotation))
    elif annotation is type(None):
        found["optional"] = True
    elif annotation is bool:
        found["boolean"] = True
    elif annotation in (int, float):
        found.setdefault("number", annotation)  # of a count or a share the count is what is sized
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found["model"] = annotation

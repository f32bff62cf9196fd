"""One sentence for a spec that does not validate: where, what was expected, the nearest valid name."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.spec.registry import Kinds, kinds
from ctxpeft.spec.yaml_lines import Document


def spec_error(error: ValidationError, document: Document, root: type[BaseModel]) -> SpecError:
    """Turn pydantic's report into a SpecError about its first and most specific problem."""
    problems = error.errors(include_url=False)
    first = max(problems, key=lambda p: (p["type"] == "extra_forbidden", len(p["loc"])))
    path = _written_path(first["loc"], document.data)
    context = first.get("ctx", {})
    kind = first["type"]
    if kind == "illegal_combination":
        path = (*path, *str(context["key"]).split("."))
    where = f"{document.name}:{document.line(path)}: {dotted(path)}"
    given = first.get("input")
    if kind == "extra_forbidden":
        valid = _fields_at(root, first["loc"][:-1])
        return SpecError(f"{where}: unknown key '{first['loc'][-1]}'{did_you_mean(str(first['loc'][-1]), valid)}")
    if kind == "missing":
        return SpecError(f"{where}: missing; this key is required")
    if kind == "union_tag_invalid":
        names = [n.strip().strip("'") for n in str(context["expected_tags"]).split(",")]
        return SpecError(f"{where}: unknown kind '{context['tag']}'{did_you_mean(context['tag'], names)}")
    if kind == "union_tag_not_found":
        return SpecError(f"{where}: expected a mapping with a 'kind', found {_shown(given)}")
    if kind == "literal_error":
        names = [n.strip().strip("'") for n in str(context["expected"]).replace(" or ", ", ").split(",")]
        return SpecError(f"{where}: {_shown(given)} is not valid here{did_you_mean(str(given), names)}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return SpecError(f"{where}: expected a mapping, found {_shown(given)}")
    if kind == "illegal_combination":
        return SpecError(f"{where}: {context['reason']}")
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind in ("value_error", "kind_as_text"):
        return SpecError(f"{where}: {message}")
    return SpecError(f"{where}: {message}, found {_shown(given)}")


def dotted(path: Sequence[str | int]) -> str:
    """`modules[0].feature_map.kind`"""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else str(part))
    return out or "the document"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    return text.replace("a dict", "a mapping") if len(text) <= 60 else text[:57] + "..."


def _written_path(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """pydantic's location without the union tags that no file contains."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, dict):
            if part in data:
                data = data[part]
                path.append(part)
            elif index == len(loc) - 1:
                path.append(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
            path.append(part)
    return tuple(path)


def _fields_at(root: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The valid keys of the model that a location points into."""
    current: Any = root
    pending: dict[str, Any] | None = None
    for part in loc:
        if pending is not None and part in pending:
            current, pending = pending[str(part)], None
            continue
        pending = None
        if isinstance(part, int):
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            tagged = [c for c in _classes(current) if c.__name__ == part]
            current = tagged[0] if tagged else current
            continue
        field = current.model_fields[str(part)]
        family = next((m.family for m in field.metadata if isinstance(m, Kinds)), None) or _family(field.annotation)
        if family:
            pending = dict(kinds(family))
            continue
        candidates = _classes(field.annotation)
        current = candidates[0] if len(candidates) == 1 else field.annotation
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as list[X], X | None or Annotated[X, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for inner in typing.get_args(annotation):
        found += _classes(inner)
    return found


def _family(annotation: Any) -> str | None:
    """The block family of an annotation such as Annotated[X, Kinds(...)] | None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((f for f in map(_family, typing.get_args(annotation)) if f), None)
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Kinds):
            return extra.family
    return None

"""Where block kinds come from: the entry-point group `ctxpeft.blocks`, our own blocks included.

An entry point is named `<family>.<kind>` and points to a spec class:

    [project.entry-points."ctxpeft.blocks"]
    "feature_map.elu" = "ctxpeft.blocks.feature_maps.elu:Elu"

A spec file can only choose among installed kinds; it never names code.
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.spec.base import BlockSpec

GROUP = "ctxpeft.blocks"


@cache
def _entries() -> dict[str, dict[str, EntryPoint]]:
    families: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        family, _, kind = entry.name.partition(".")
        known = families.setdefault(family, {})
        if kind in known and known[kind].value != entry.value:
            raise SpecError(
                f"two installed packages register the block '{entry.name}': {_origin(known[kind])} and "
                f"{_origin(entry)}; uninstall one of them or rename its kind"
            )
        known[kind] = entry
    return families


def _origin(entry: EntryPoint) -> str:
    """What an entry point points to, and the package it came with."""
    return f"{entry.value} of {entry.dist.name}" if entry.dist else entry.value


def families() -> list[str]:
    """Names of all block families that have at least one installed kind."""
    return sorted(_entries())


@cache
def kinds(family: str) -> dict[str, type[BlockSpec]]:
    """Installed kinds of a family, by name. Raises SpecError if an entry point does not hold what it names."""
    entries = _entries().get(family)
    if not entries:
        raise SpecError(f"no block family '{family}' is installed{did_you_mean(family, _entries())}")
    return {kind: _load(entry, family, kind) for kind, entry in sorted(entries.items())}


def _load(entry: EntryPoint, family: str, kind: str) -> type[BlockSpec]:
    try:
        cls = entry.load()
    except Exception as error:  # an import of somebody else's package may fail in any way
        raise SpecError(
            f"the block '{entry.name}' ({_origin(entry)}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, BlockSpec)):
        raise SpecError(f"the block '{entry.name}' ({_origin(entry)}) is not a subclass of BlockSpec")
    if cls.family != family or cls.model_fields["kind"].default != kind:
        raise SpecError(
            f"the block '{entry.name}' ({_origin(entry)}) calls itself "
            f"'{cls.family}.{cls.model_fields['kind'].default}'; the two names must agree"
        )
    return cls


@dataclass(frozen=True)
class Kinds:
    """Annotation of a field that takes any installed kind of a family; a union discriminated by `kind`.

    flat: only kinds that hold no block of the same family. A block made of another block of its own family declares
    that field flat, and `defer_build=True` in its `model_config`, because the union holds the block itself.
    """

    family: str
    flat: bool = False

    def installed(self) -> dict[str, type[BlockSpec]]:
        """The kinds that can stand here, by name. Raises SpecError as `kinds` does."""
        found = kinds(self.family)
        return {kind: cls for kind, cls in found.items() if not (self.flat and _holds(cls, self.family))}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {kind: handler.generate_schema(cls) for kind, cls in self.installed().items()}
        return core_schema.tagged_union_schema(choices, discriminator="kind")


def choice_of(field: FieldInfo) -> Kinds | None:
    """The `Kinds` of a field declared as Annotated[X, Kinds(...)], also with `| None`; None for any other field."""
    return _marked(field.metadata) or _choice_in(field.annotation)


def _choice_in(annotation: Any) -> Kinds | None:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((c for c in map(_choice_in, typing.get_args(annotation)) if c), None)
    return _marked(getattr(annotation, "__metadata__", ()))


def _marked(metadata: typing.Iterable[Any]) -> Kinds | None:
    return next((m for m in metadata if isinstance(m, Kinds)), None)


def _holds(cls: type[BlockSpec], family: str) -> bool:
    return any(choice.family == family for choice in map(choice_of, cls.model_fields.values()) if choice)

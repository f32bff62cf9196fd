"""Rows to examples: the text of every column a prompt needs, and the answer the model has to give."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ctxpeft.errors import DataError, did_you_mean
from ctxpeft.tasks._columns import ROLES_OF, Kind, infer_kind, resolve_columns
from ctxpeft.tasks._files import Row
from ctxpeft.tasks._spec import DEFAULT_TEMPLATES, TaskSpec, template_fields


@dataclass(frozen=True)
class Example:
    """One example: the values that fill the template, and the answer.

    `target` is the label or the completion; empty in language modelling.
    `id` is a hash of the values and the target, the same in every run and for every model.
    """

    fields: dict[str, str]
    target: str
    where: str = ""

    @property
    def text(self) -> str:
        """All values joined: what decides whether two examples are the same."""
        return "\n".join(self.fields.values())

    @cached_property
    def key(self) -> str:
        """A hash of the text that case and spacing do not change: splits and duplicates go by it."""
        return hashlib.sha256(" ".join(self.text.casefold().split()).encode()).hexdigest()

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(f"{self.text}\x00{self.target}".encode()).hexdigest()[:16]


@dataclass
class Reader:
    """Turns rows into examples of one task; the kind and columns are settled by the first file read."""

    spec: TaskSpec
    kind: Kind | None = None
    notes: list[str] = field(default_factory=list)

    def read(self, rows: Iterable[Row]) -> list[Example]:
        """All rows of one file as examples.

        Raises:
            DataError: a missing column, an empty or non-text value, labels of mixed types.
        """
        stream = iter(rows)
        first = next(stream)
        kind, sources, target = self._settle(first)
        own = {*ROLES_OF[kind], next(iter(sources))}
        examples: list[Example] = []
        label_type: tuple[type, str] | None = None
        for row in _again(first, stream):
            fields = {name: _text(row, column, name in own) for name, column in sources.items()}
            answer = _text(row, target) if target else ""
            if kind == "classification" and target:
                given = _label_type(row.values[target])
                if label_type and given != label_type[0]:
                    raise DataError(
                        f"{row.where}: the label {row.values[target]!r} is {_type_name(given)} where "
                        f"{label_type[1]} has {_type_name(label_type[0])}"
                    )
                label_type = label_type or (given, first.place)
            examples.append(Example(fields, answer, row.where))
        return examples

    def template(self) -> str:
        """The template in force."""
        return self.spec.template or DEFAULT_TEMPLATES[self.kind or "classification"]

    def _settle(self, first: Row) -> tuple[Kind, dict[str, str], str | None]:
        """The kind, the column of every template field, and the column of the answer."""
        names = [str(name) for name in first.values]
        wanted = template_fields(self.spec.template) if self.spec.template else []
        chosen = self.spec.columns.chosen()
        if wanted and wanted[0] in names:
            chosen["text"] = chosen["text"] or (wanted[0] if "text" not in wanted else None)
            chosen["prompt"] = chosen["prompt"] or (wanted[0] if "prompt" not in wanted else None)
        kind = self.kind = self.kind or self.spec.kind or infer_kind(names, chosen, first.file)
        found, notes = resolve_columns(kind, names, chosen, first.file)
        self.notes += [note for note in notes if note not in self.notes]
        target = found.get("label") or found.get("completion")
        sources: dict[str, str] = {}
        for name in wanted or [role for role in found if found[role] != target]:
            column = found.get(name, name)  # type: ignore[call-overload]
            if column not in names:
                raise DataError(
                    f"{first.file}: the template's '{name}' is no column{did_you_mean(name, names)}"
                )
            if column == target:
                raise DataError(f"{first.file}: the template shows the answer column '{column}' to the model")
            sources[name] = column
        return kind, sources, target


def _again(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _text(row: Row, column: str, required: bool = True) -> str:
    """The value as text, without surrounding white space; only further template columns may be empty."""
    if column not in row.values:
        near = did_you_mean(column, [str(k) for k in row.values])
        raise DataError(f"{row.where}: no '{column}'{near}")
    value = row.values[column]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        raise DataError(f"{row.where}: '{column}' is {value}: expected text")
    if isinstance(value, dict | list):
        found = "a list" if isinstance(value, list) else "an object"
        raise DataError(f"{row.where}: '{column}' is {found}: expected text")
    text = "" if value is None else str(value).strip()
    if not text and required:
        raise DataError(f"{row.where}: '{column}' is empty")
    return text


def _label_type(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _type_name(kind: type) -> str:
    return {float: "a number", str: "text", bool: "a truth value"}.get(kind, kind.__name__)

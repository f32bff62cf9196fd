"""Rows to examples: the text of every column a prompt needs, and the answer the model has to give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ctxpeft.errors import DataError, did_you_mean
from ctxpeft.tasks._choices import read_choices, unfolded
from ctxpeft.tasks._columns import ROLES_OF, TARGETS, Kind, Role, infer_kind, resolve_columns
from ctxpeft.tasks._example import Example
from ctxpeft.tasks._files import Row
from ctxpeft.tasks._spec import DEFAULT_TEMPLATES, TaskSpec, template_fields
from ctxpeft.tasks._store import Store
from ctxpeft.tasks._view import Examples


@dataclass
class Reader:
    """Turns rows into examples of one task; the kind and columns are settled by the first file read."""

    spec: TaskSpec
    kind: Kind | None = None
    notes: list[str] = field(default_factory=list)
    found: dict[Role, str] = field(default_factory=dict)
    store: Store = field(default_factory=Store)

    def read(self, rows: Iterable[Row]) -> Examples:
        """All rows of one file as examples; a completion that is a list of references gives one for each.

        Raises:
            DataError: a missing column, an empty or non-text value, labels of mixed types.
        """
        if self.spec.kind == "multiple_choice":
            rows = unfolded(rows, self.spec.columns.choices)
        stream = iter(rows)
        first = next(stream)
        kind, sources, target = self._settle(first)
        own, names = {*ROLES_OF[kind], next(iter(sources))}, tuple(sources)
        begun = len(self.store)
        label_type: tuple[type, str] | None = None
        skipped = 0
        for row in _again(first, stream):
            values = tuple(
                _text(row, column, name in own, self.spec.separator) for name, column in sources.items()
            )
            place = row.file, row.unit, row.number
            unseen = any(str(row.values.get(name)) in kept for name, kept in self.spec.unseen.items())
            if kind == "multiple_choice":
                choices, right = read_choices(row, self.found["choices"], self.found["answer"])
                self._add(row, Example(names, values, right, *place, choices, unseen))
                continue
            if kind == "completion" and target and (texts := self._references(row, target)):
                for one in texts:
                    self._add(row, Example(names, values, one, *place, (), unseen))
                continue
            answer = _text(row, target) if target else ""
            if kind == "classification" and self._left_out(answer := self._label_name(answer)):
                skipped += 1
                continue
            if kind == "classification" and target:
                given = _label_type(row.values[target])
                if label_type and given != label_type[0]:
                    raise DataError(
                        f"{row.where}: the label {row.values[target]!r} is {_type_name(given)} where "
                        f"{label_type[1]} has {_type_name(label_type[0])}"
                    )
                label_type = label_type or (given, first.place)
            self._add(row, Example(names, values, answer, *place, (), unseen))
        if skipped:
            self.notes.append(f"{first.file}: {skipped} rows of other labels were left out")
        if len(self.store) == begun:
            raise DataError(f"{first.file}: no row has one of the task's labels")
        return Examples(self.store, begun)

    def _add(self, row: Row, example: Example) -> None:
        try:
            self.store.add(example)
        except UnicodeEncodeError as error:
            half = error.object[error.start].encode("unicode_escape").decode()
            raise DataError(f"{row.where}: half a character ({half}): expected Unicode text") from None

    def _references(self, row: Row, target: str) -> list[str]:
        """The texts of a completion that is a list, each once; nothing where it is one text."""
        column = self.spec.columns.references
        if column is None or not row.values.get(column):
            column = target
        given = row.values.get(column)
        if not isinstance(given, list):
            return []
        texts = [_text(Row(row.file, row.unit, row.number, {column: one}), column) for one in given]
        if not texts:
            raise DataError(f"{row.where}: '{column}' is an empty list: expected one text or more")
        return list(dict.fromkeys(texts))

    def _label_name(self, label: str) -> str:
        """The name of a label that the data give by its number."""
        names = self.spec.label_names
        return names[int(label)] if names and label.isdigit() and int(label) < len(names) else label

    def _left_out(self, label: str) -> bool:
        known = self.spec.labels or self.spec.label_names or ()
        return self.spec.skip_other_labels and label not in known

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
        self.found = found
        for name in self.spec.unseen:
            if name not in names:
                raise DataError(f"{first.file}: no column '{name}' for `unseen`{did_you_mean(name, names)}")
        self.notes += [note for note in notes if note not in self.notes]
        target = found.get(TARGETS[kind]) if kind in TARGETS else None
        sources: dict[str, str] = {}
        for name in wanted or [role for role in found if found[role] != target and role != "choices"]:
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


def _text(row: Row, column: str, required: bool = True, separator: str | None = None) -> str:
    """The value as text, without surrounding white space; only further template columns may be empty."""
    if column not in row.values:
        near = did_you_mean(column, [str(k) for k in row.values])
        raise DataError(f"{row.where}: no '{column}'{near}")
    value = row.values[column]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        raise DataError(f"{row.where}: '{column}' is {value}: expected text")
    if isinstance(value, list) and separator is not None and all(isinstance(v, str) for v in value):
        value = separator.join(value)
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

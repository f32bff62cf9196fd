"""A search space as a file: what is searched, against what, at which size, with which rates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ctxpeft.errors import SpecError, gathered
from ctxpeft.search.named import named_variant
from ctxpeft.search.rates import Rates
from ctxpeft.search.sections import checks
from ctxpeft.search.settings import Budget, Like, Search
from ctxpeft.search.space.nodes import Position, Record
from ctxpeft.search.space.parse import PatternParser
from ctxpeft.shipped import space_path
from ctxpeft.spec.base import Spec
from ctxpeft.spec.document import Path_
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import Document, read_yaml


class PositionSpec(Spec):
    """One place in the list of modules: templates by name, one of which is chosen; `optional` may leave it out."""

    templates: Annotated[dict[str, Any], Field(min_length=1)]
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _no_bare_module(cls, data: Any) -> Any:
        """A module as a variant writes it, with questions in it but under no name."""
        if isinstance(data, dict) and "placement" in data and "templates" not in data:
            raise ValueError(
                "a module of a space stands under a name of yours, one of those the search chooses among: "
                "templates: {NAME: {placement: ...}}"
            )
        return data

    @field_validator("templates")
    @classmethod
    def _plain_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"a template's name has letters, digits, - and _ only; found '{name}'")
        return value


class SpaceFile(Spec):
    """A search space. `modules` is written in the grammar of `ctxpeft.search.space.parse`.

    model, task: what to search on, unless the command line says; a list of tasks is searched jointly; training, data:
    settings of `ctxpeft train` and of the tasks; anchors: variants that are tried first, each at its nearest size to
    the budget, never pruned.
    """

    title: str = ""
    model: str | None = None
    task: str | list[str] | None = None
    modules: Annotated[list[PositionSpec], Field(min_length=1, max_length=4)]
    anchors: list[str] = Field(default_factory=list)
    budget: Budget | None = None
    rates: Rates = Rates()
    search: Search = Search()
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """The tasks as a list."""
        return [self.task] if isinstance(self.task, str) else list(self.task or [])


@dataclass(frozen=True)
class Space:
    """A space that has been checked: its file, its tree, and the folder that relative variant paths start from."""

    name: str
    file: SpaceFile
    positions: tuple[Position, ...]
    folder: Path


def load_space(what: str | os.PathLike[str]) -> Space:
    """A shipped space's name or a YAML file. Raises SpecError in one sentence."""
    path = space_path(os.fspath(what))
    return space_from_document(read_yaml(path), path.stem, path.parent)


def space_from_document(document: Document, name: str, folder: Path) -> Space:
    """A space from plain data; messages use the document's name and lines."""
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.name}: expected a mapping with 'modules' and so on")
    file, templates = _read(document, folder)
    positions = tuple(
        Position(tuple((key, templates[index, key]) for key in position.templates), position.optional)
        for index, position in enumerate(file.modules)
    )
    if all(position.optional for position in positions):
        raise SpecError(
            f"{document.name}:{document.line(('modules',))}: modules: every module is optional; one must be there"
        )
    return Space(name, file, positions, folder)


def _read(document: Document, folder: Path) -> tuple[SpaceFile, dict[tuple[int, str], Record]]:
    """The file, and every template by its place and name. Raises SpecError with all mistakes of both."""
    files: list[SpaceFile] = []
    templates: dict[tuple[int, str], Record] = {}
    parser = PatternParser(document)

    def whole() -> None:
        try:
            files.append(SpaceFile.model_validate(document.data))
        except ValidationError as error:
            raise spec_error(error, document, SpaceFile) from None

    def template(index: int, key: str, pattern: Any) -> None:
        templates[index, key] = parser.template(pattern, ("modules", index, "templates", key))

    def names() -> None:
        gathered(
            partial(_named, *where, document) for where in (_variants(files[0], folder) if files else ())
        )

    written = [partial(template, *place) for place in _templates(document.data)]
    steps: list[Callable[[], None]] = [whole, *written, *checks(document), names]
    gathered(steps)
    return files[0], templates


def _templates(data: Any) -> Iterator[tuple[int, str, Any]]:
    """The templates that a file holds, be the file otherwise as it may."""
    modules = data.get("modules")
    for index, position in enumerate(modules if isinstance(modules, list) else ()):
        found = position.get("templates") if isinstance(position, dict) else None
        if isinstance(found, dict):
            yield from ((index, key, pattern) for key, pattern in found.items())


def _variants(file: SpaceFile, folder: Path) -> Iterator[tuple[Path_, Callable[[], Variant]]]:
    """Every variant that a space names, by its key: a search that loses an anchor compares with nothing."""
    wanted = file.budget.parameters if file.budget else None
    if isinstance(wanted, Like):
        yield ("budget", "parameters"), partial(load_variant, wanted.like)
    for index, anchor in enumerate(file.anchors):
        yield ("anchors", index), partial(named_variant, anchor, folder)


def _named(key: Path_, load: Callable[[], Variant], document: Document) -> None:
    try:
        load()
    except SpecError as error:
        raise SpecError(f"{document.where(key)}: {error}") from None

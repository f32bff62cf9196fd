"""A search space as a file: what is searched, against what, at which size, with which rates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ctxpeft.errors import SpecError, gathered
from ctxpeft.search.measures import LEARNED, Name
from ctxpeft.search.named import named_variant
from ctxpeft.search.rates import Rates
from ctxpeft.search.space.nodes import Position, Record
from ctxpeft.search.space.parse import PatternParser
from ctxpeft.shipped import space_path
from ctxpeft.spec.base import Spec
from ctxpeft.spec.document import Path_
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import Document, read_yaml

Share = Annotated[float, Field(gt=0, le=1)]


class Like(Spec):
    """As many parameters as a variant has on the model."""

    like: str


class Budget(Spec):
    """Trainable parameters every design must have, within `tolerance` (a share)."""

    parameters: Annotated[int, Field(ge=1)] | Like
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.03
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.25, 0.5, 0.75], description="What the first of two modules may take."
    )

    @field_validator("parameters", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if value is None or value == "":
            raise ValueError("a value is missing; expected a whole number such as 30000, or {like: VARIANT}")
        if isinstance(value, str) and value.startswith("like:"):
            return {"like": value.removeprefix("like:").strip()}
        return value


class Search(Spec):
    """How the search goes.

    trials: designs trained beyond the anchors, to the end, to the rung, or to a failure; designs that cost nothing
    (infeasible, seen before) are not counted. rung: the share of the steps after which rates are compared and designs
    pruned, or several shares, rising, rates being compared at the first. keep: the share of designs that passes a rung.
    audit: the share of those stopped there that are trained to the end all the same, so that the study tells how often
    rungs are wrong. finalists: how many of the best are trained again on `seeds` fresh seeds together with the anchors;
    0 skips that. objective: what decides, one name or several (a Pareto front, ranked by the first); constraints:
    bounds of what does not decide. Names: loss, metric, ood, forgetting, parameters, latency, bytes. forgetting: the
    text whose loss may not rise. guide: whether what breaks a `must` or `should` rule of the construction guide is
    left out.
    """

    trials: Annotated[int, Field(ge=0)] = 30
    seed: int = 0
    rung: Share | Annotated[list[Share], Field(min_length=1, max_length=4)] = 0.2
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    warmup: Annotated[int, Field(ge=0)] = Field(
        4, description="Designs, anchors included, that pass the rung before any is pruned."
    )
    startup: Annotated[int, Field(ge=1)] = Field(
        10, description="Designs drawn at random before the sampler learns; the population of nsga2."
    )
    finalists: Annotated[int, Field(ge=0)] = 1
    seeds: Annotated[int, Field(ge=1)] = 3
    retune: Annotated[int, Field(ge=0, le=4)] = Field(
        1,
        description="How many rates below the one chosen at the rung, or else above it, each finalist tries in full "
        "before the fresh seeds; short runs like high rates.",
    )
    objective: Name | Annotated[list[Name], Field(min_length=1)] = "loss"
    constraints: dict[Name, float] = Field(
        default_factory=dict, description="The least metric or ood, the most of everything else."
    )
    forgetting: str | None = Field(None, description="A text file; see objective.")
    forgetting_tokens: Annotated[int, Field(ge=256)] = 8192
    audit: Annotated[float, Field(ge=0, le=1)] = 0.0
    metrics: bool = Field(
        True,
        description="Whether full runs score every label besides the loss; many long labels make that slow.",
    )
    guide: bool = True
    together: bool = Field(
        False,
        description="Whether the rates of a design are trained side by side at the first rung, each row of a batch "
        "through its own adapter, where that computes what separate runs compute. On a CPU no gain was measured.",
    )
    cache: Annotated[int, Field(ge=0)] = Field(
        256,
        description="MiB that a worker may fill with hidden states below the lowest adapted layer, so that designs of "
        "upper layers do not compute them anew for each batch; 0 keeps none. Results are the same, bit for bit.",
    )
    sampler: Literal["tpe", "nsga2", "random", "gp"] = Field(
        "tpe",
        description="Who proposes designs: TPE over groups of dimensions, NSGA-II, chance, or a Gaussian process.",
    )

    @property
    def objectives(self) -> tuple[Name, ...]:
        """What decides, the first ranks."""
        return (self.objective,) if isinstance(self.objective, str) else tuple(self.objective)

    @property
    def pareto(self) -> bool:
        """Whether several things decide."""
        return len(self.objectives) > 1

    @property
    def wanted(self) -> tuple[Name, ...]:
        """Everything that is measured: objectives, then constraints."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))

    @property
    def quality(self) -> Literal["loss", "metric"]:
        """What rates and rungs are compared by."""
        return "metric" if "metric" in self.objectives and "loss" not in self.objectives else "loss"

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of the steps, rising."""
        return (self.rung,) if isinstance(self.rung, float) else tuple(self.rung)

    @field_validator("forgetting")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError("a value is missing; expected the path of a text file")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Search:
        names = self.objectives
        if names[0] not in LEARNED:
            raise ValueError(
                f"objective: {names[0]} alone is best where nothing is learned; begin with {', '.join(LEARNED)}, and "
                "add it behind, or to the constraints"
            )
        if len(set(names)) < len(names):
            raise ValueError("objective: a name stands there twice")
        both = next((name for name in names if name in self.constraints), None)
        if both:
            raise ValueError(f"constraints: {both} is an objective already")
        if "forgetting" in self.wanted and self.forgetting is None:
            raise ValueError("forgetting needs a text: search.forgetting: FILE")
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rung: expected rising shares, such as [0.1, 0.3]")
        return self


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
    steps: list[Callable[[], None]] = [whole, *written, names]
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

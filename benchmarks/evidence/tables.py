"""The tables of docs/evidence, as `tables.yaml` says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctxpeft.cli._overrides import set_path
from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.yaml_lines import Document, read_yaml
from ctxpeft.training import BASELINES, Method, load_method

FILE = Path(__file__).with_name("tables.yaml")
Size = Literal["default", "equal"]


class Entry(BaseModel):
    """A method of a table: a shipped one, renamed, with another centre of the rates tried, or changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str
    name: str | None = None
    rate: float | None = None
    set: dict[str, Any] = Field(default_factory=dict)

    def method(self) -> Method:
        """The method it means."""
        if self.use in BASELINES:
            return load_method(self.use)
        tree = load_variant(self.use).to_dict()
        for key, value in self.set.items():
            set_path(tree, key, value)
        if self.name:
            tree["name"] = self.name
        if self.rate:
            tree["training"] = {**(tree.get("training") or {}), "learning_rate": self.rate}
        return load_method(load_variant(tree))


class Claim(BaseModel):
    """A sentence that the difference between two methods supports or contradicts.

    of: the method that is said to be better, the reference of the table when None; else `than` is what the table is
    compared `against`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: str
    than: str
    of: str | None = None


class Behind(BaseModel):
    """Inputs behind so many words of a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    words: list[int]


class Table(BaseModel):
    """One table: a task, methods, and what is varied. against: a method that the same runs are compared with once more,
    beside the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    asks: str
    task: str
    train: list[str]
    test: list[str] = Field(default_factory=list)
    unrelated: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    variants: list[Entry | str]
    equal: list[Entry | str] = Field(default_factory=list)
    sizes: list[Size]
    budget: str
    seeds: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    per_class: list[int] = Field(default_factory=list)
    behind: Behind | None = None
    stories: list[str] = Field(default_factory=list)
    dilution: bool = False
    encoder: bool = False
    against: str | None = None
    claims: list[Claim] = Field(default_factory=list)

    @property
    def axis(self) -> str | None:
        """What a curve runs along; None for a table of one comparison."""
        if self.per_class:
            return "training examples per class"
        return "words of a story before the question" if self.behind else None

    def places(self, folder: Path) -> dict[int, Path]:
        """Where the comparisons of a size lie in its folder, by their places on the axis."""
        if self.per_class:
            return {n: folder / f"per-class-{n}" for n in self.per_class}
        return {n: folder / f"words-{n}" for n in self.behind.words} if self.behind else {0: folder}

    def entries(self, size: Size) -> list[Entry]:
        """The methods at a size."""
        given = self.equal if size == "equal" and self.equal else self.variants
        return [Entry(use=e) if isinstance(e, str) else e for e in given]

    def with_settings(self, given: Mapping[str, Any]) -> Table:
        """With other `steps` and `seeds`; all else is a setting of the task. Raises SpecError."""
        own = {key: given[key] for key in ("steps", "seeds") if key in given}
        rest = {key: value for key, value in given.items() if key not in own}
        data = {**self.model_dump(), **own, "settings": {**self.settings, **rest}}
        try:
            return Table.model_validate(data)
        except ValidationError as error:
            raise spec_error(error, Document(data, {}, "--set"), Table) from None


class Plan(BaseModel):
    """All tables, in the order in which they run, and what cannot be tested on such models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: dict[str, Table]
    untestable: list[str] = Field(default_factory=list)

    def chosen(self, names: Sequence[str]) -> list[Table]:
        """The named tables, all where none is named. Raises SpecError with the nearest name for another."""
        for name in names:
            if name not in self.tables:
                raise SpecError(f"there is no table '{name}'{did_you_mean(name, self.tables)}")
        return [self.tables[name] for name in names or self.tables]


def load_plan(path: Path = FILE) -> Plan:
    """Read a plan; every table gets the defaults it leaves out. Keys beside a plan's own hold what its tables repeat.

    Raises SpecError in one sentence with the file and the line.
    """
    document = read_yaml(path)
    given = document.data if isinstance(document.data, Mapping) else {}
    plan = {key: given[key] for key in ("tables", "untestable") if key in given}
    if isinstance(tables := given.get("tables"), Mapping):
        plan["tables"] = {name: _filled(name, table, given.get("defaults")) for name, table in tables.items()}
    try:
        return Plan.model_validate(plan)
    except ValidationError as error:
        raise spec_error(error, Document(plan, document.lines, document.name), Plan) from None


def _filled(name: str, table: Any, defaults: Any) -> Any:
    """A table with the defaults; of `training`, key by key."""
    if not isinstance(table, Mapping):
        return table
    filled = {**(defaults if isinstance(defaults, Mapping) else {}), **table, "name": name}
    trainings = [of.get("training", {}) for of in (defaults, table) if isinstance(of, Mapping)]
    if all(isinstance(training, Mapping) for training in trainings):
        filled["training"] = {key: value for training in trainings for key, value in training.items()}
    return filled

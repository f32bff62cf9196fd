"""The tables of docs/evidence, as `tables.yaml` says them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ctxpeft.cli._overrides import set_path
from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.spec.load import load_variant
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


class Plan(BaseModel):
    """All tables, in the order in which they run, and what cannot be tested on such models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: dict[str, Table]
    untestable: list[str]

    def chosen(self, names: Sequence[str]) -> list[Table]:
        """The named tables, all where none is named. Raises SpecError with the nearest name for another."""
        for name in names:
            if name not in self.tables:
                raise SpecError(f"there is no table '{name}'{did_you_mean(name, self.tables)}")
        return [self.tables[name] for name in names or self.tables]


def load_plan(path: Path = FILE) -> Plan:
    """Read `tables.yaml`; every table gets the defaults it leaves out."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    defaults = data["defaults"]
    tables = {
        name: {
            **defaults,
            **table,
            "name": name,
            "training": {**defaults["training"], **table.get("training", {})},
        }
        for name, table in data["tables"].items()
    }
    return Plan.model_validate({"tables": tables, "untestable": data["untestable"]})

"""What a comparison found, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ctxpeft import __version__
from ctxpeft.analysis.rates import RateTrial
from ctxpeft.analysis.statistics import Interval


@dataclass(frozen=True)
class Entry:
    """One variant's row.

    values: the main metric on test data, one a seed.
    difference: to the reference in that metric; `adjusted` is its p-value after Holm's correction for the number of
    comparisons with the reference.
    ood: the main metric of the out-of-distribution data.
    forgetting: mean nats a token that the loss on unrelated text rose over the frozen base's.
    """

    name: str
    fingerprint: str
    trainable: int
    deployed: int
    learning_rate: float
    values: list[float]
    mean: float
    sd: float | None
    interval: Interval
    seconds: float
    metrics: dict[str, float]
    difference: Interval | None = None
    adjusted: float | None = None
    ood: Interval | None = None
    forgetting: Interval | None = None
    sweep: list[RateTrial] = field(default_factory=list)

    @property
    def significant(self) -> bool:
        """Whether the difference to the reference holds after correction, at the level of its interval."""
        if self.difference is None or self.adjusted is None:
            return False
        return self.adjusted < round(1 - self.difference.level, 9)  # 1 - 0.95 is a little more than 0.05

    @property
    def verdict(self) -> str:
        """`significant` or `not significant`; empty for the reference."""
        if self.difference is None:
            return ""
        return "significant" if self.significant else "not significant"


@dataclass(frozen=True)
class Comparison:
    """All rows; the first variant is the reference of every difference.

    train_examples: of one run. draws: whether every seed drew its own. base: the frozen base's `ood` metric and its
    loss on `unrelated` text, where they were asked for.
    """

    model: str
    task: str
    kind: str
    metric: str
    greater_is_better: bool
    seeds: list[int]
    steps: int
    train_examples: int
    test_examples: int
    resamples: int
    tuned: bool
    entries: list[Entry]
    notes: list[str]
    draws: bool = False
    ood_metric: str | None = None
    ood_greater_is_better: bool = True
    base: dict[str, float] = field(default_factory=dict)
    version: str = __version__

    def __repr__(self) -> str:
        names = ", ".join(entry.name for entry in self.entries)
        return f"<comparison of {names} on {self.task}: test {self.metric}, seeds {self.seeds}>"

    def __str__(self) -> str:
        """The table as Markdown."""
        from ctxpeft.analysis.table import markdown

        return markdown(self)

    def _repr_html_(self) -> str:
        from ctxpeft.analysis.table import footnote, rows
        from ctxpeft.html import table

        header, cells = rows(self)
        return table(header, cells, after=" ".join([footnote(self), *(f"{note}." for note in self.notes)]))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the verdict of every difference as a word."""
        data = asdict(self)
        for entry, plain in zip(self.entries, data["entries"], strict=True):
            if entry.difference is not None:
                plain["difference"]["verdict"] = entry.verdict
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """What `to_dict` gave, also by way of JSON."""
        entries = []
        for plain in data["entries"]:
            intervals = {
                name: Interval(**{k: v for k, v in plain[name].items() if k != "verdict"})
                for name in ("interval", "difference", "ood", "forgetting")
                if plain[name] is not None
            }
            sweep = [
                RateTrial(t["rate"], math.inf if t["loss"] is None else t["loss"], t["metric"])
                for t in plain["sweep"]
            ]
            entries.append(Entry(**{**plain, **intervals, "sweep": sweep}))
        return cls(**{**data, "entries": entries})

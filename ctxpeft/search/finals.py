"""The best designs and the anchors once more, on fresh seeds; test data are read here, once, and decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from ctxpeft.analysis.statistics import Interval, as_matrix, paired_difference
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.objective import variant_of
from ctxpeft.search.outcome import Row, ranking
from ctxpeft.tasks import Evaluation
from ctxpeft.training import RunResult


@dataclass(frozen=True)
class Final:
    """One method on the fresh seeds. `validation` is the objective of each seed, `test` the main metric of each.

    searched: the objective of the search's own run; how far the fresh ones fall behind it is the winner's curse.
    """

    number: int
    name: str
    anchor: str
    parameters: int | None
    rate: float
    searched: float
    validation: list[float]
    test: list[float]

    @property
    def mean(self) -> float:
        """Mean objective over the fresh seeds."""
        return fmean(self.validation)


@dataclass(frozen=True)
class Versus:
    """The winner against one anchor: `interval` is of winner minus anchor in the main metric of `split`."""

    anchor: str
    split: str
    metric: str
    greater_is_better: bool
    winner: float
    other: float
    interval: Interval

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not significant`: whether the interval leaves zero out."""
        if not self.interval.significant:
            return self.interval.word
        return "better" if (self.interval.low > 0) == self.greater_is_better else "worse"


@dataclass(frozen=True)
class Finals:
    """What the fresh seeds say. `winner` is the trial number, chosen on validation data alone.

    left_out: methods of which a fresh run diverged.
    """

    seeds: list[int]
    winner: int
    split: str
    methods: list[Final]
    versus: list[Versus]
    left_out: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Plain data, verdicts included."""
        data = asdict(self)
        for item, versus in zip(data["versus"], self.versus, strict=True):
            item["verdict"] = versus.verdict
        return data

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Finals:
        """What `plain` gave."""
        versus = []
        for item in data["versus"]:
            kept = {key: value for key, value in item.items() if key != "verdict"}
            versus.append(Versus(**{**kept, "interval": Interval(**item["interval"])}))
        return cls(**{**data, "methods": [Final(**method) for method in data["methods"]], "versus": versus})


def finalists(rows: Sequence[Row], count: int) -> list[Row]:
    """The best designs beyond the anchors, then every anchor that finished."""
    designs = ranking(rows, anchors=False)[:count]
    anchors = [row for row in rows if row.anchor and row.outcome == "completed"]
    return [*designs, *anchors] if designs else []


def fresh_seeds(laboratory: Laboratory) -> list[int]:
    """Seeds that no trial of the search used."""
    search = laboratory.job.search
    return [search.seed + 1 + i for i in range(search.seeds)]


def fresh_run(laboratory: Laboratory, row: Row, seed: int) -> RunResult:
    """One finalist on one fresh seed, evaluated on test data too."""
    assert row.rate is not None
    splits = ("validation", "test") if laboratory.bench.task.test else ("validation",)
    return laboratory.train(variant_of(row), row.rate, laboratory.steps, seed, splits)


def run_finals(laboratory: Laboratory, rows: Sequence[Row], say: Callable[[str], None]) -> Finals | None:
    """Train the finalists on fresh seeds and compare. None where there is nothing to compare."""
    search = laboratory.job.search
    chosen = finalists(rows, search.finalists)
    if not chosen:
        return None
    seeds = fresh_seeds(laboratory)
    split = "test" if laboratory.bench.task.test else "validation"
    methods: list[Final] = []
    left_out: list[str] = []
    evaluations: dict[int, list[Evaluation]] = {}
    for index, row in enumerate(chosen):
        assert row.rate is not None
        assert row.value is not None
        name = row.anchor or row.name
        say(f"fresh seeds, {index + 1} of {len(chosen)}: {name}, {len(seeds)} runs")
        results = [fresh_run(laboratory, row, seed) for seed in seeds]
        done = [r for r in results if "validation" in r.evaluations]
        if len(done) < len(results):
            left_out.append(name)
            continue
        evaluations[row.number] = [r.evaluations[split] for r in done]
        scores = [laboratory.score(r.evaluations["validation"]) for r in done]
        test = [e.value for e in evaluations[row.number]]
        methods.append(Final(row.number, name, row.anchor, row.parameters, row.rate, row.value, scores, test))
    designs = [m for m in methods if not m.anchor]
    if not designs:
        return None
    winner = min(designs, key=lambda m: (m.mean, m.number))
    versus = [
        _versus(m, evaluations[winner.number], evaluations[m.number], split) for m in methods if m.anchor
    ]
    return Finals(seeds, winner.number, split, methods, versus, left_out)


def _versus(anchor: Final, winner: list[Evaluation], other: list[Evaluation], split: str) -> Versus:
    first = winner[0]
    ours, weights, _ = as_matrix(winner)
    theirs, _, _ = as_matrix(other)
    return Versus(
        anchor.name,
        split,
        first.primary,
        first.greater_is_better,
        fmean(e.value for e in winner),
        fmean(e.value for e in other),
        paired_difference(ours, theirs, weights),
    )

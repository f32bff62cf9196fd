"""What each design chose, in the words of the algebra, and the scores that came with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ctxpeft.analysis.groups import difference, mean_interval
from ctxpeft.analysis.statistics import Interval
from ctxpeft.search.outcome import Row
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.module import ModuleSpec

ABSENT = "does not apply"


@dataclass(frozen=True)
class Answer:
    """One answer with the rung's objective (smaller is better) of every design that gave it.

    interval: of the mean. effect: of this answer minus the others, among designs of the same templates; None where the
    templates decide the answer, or designs are too few.
    """

    name: str
    scores: list[float]
    interval: Interval | None
    effect: Interval | None

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return fmean(self.scores)


@dataclass(frozen=True)
class Choice:
    """A question with its answers, best mean first."""

    question: str
    answers: list[Answer]


def trained(rows: Sequence[Row]) -> list[Row]:
    """Designs beyond the anchors that have a score at the rung."""
    return [
        row
        for row in rows
        if row.rung is not None and not row.anchor and row.outcome in ("completed", "pruned")
    ]


def choices_of(rows: Sequence[Row]) -> list[Choice]:
    """The questions that trained designs answered in two ways or more; the wider apart the means, the earlier."""
    designs = trained(rows)
    scores = [row.rung for row in designs if row.rung is not None]
    templates = [row.templates for row in designs]
    table: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(designs):
        for question, answer in answers(row).items():
            table[question][answer].append(index)
    found = []
    for question, given in table.items():
        if len(given) < 2:
            continue
        every = []
        for name, places in given.items():
            own = [scores[i] for i in places]
            chosen = [i in places for i in range(len(scores))]
            every.append(Answer(name, own, mean_interval(own), difference(scores, chosen, templates)))
        found.append(Choice(question, sorted(every, key=lambda a: a.mean)))
    return sorted(found, key=lambda c: c.answers[0].mean - c.answers[-1].mean)


def answers(row: Row) -> dict[str, str]:
    """The design's first module, and what stands beside it."""
    variant = load_variant(row.variant)
    if not variant.modules:
        return {}
    first = _module(variant.modules[0])
    beside = [_short(module) for module in variant.modules[1:]]
    apart = max(module.learning_rate_ratio for module in variant.modules)
    return {
        **first,
        "second module": " + ".join(beside) or "none",
        "learning rates": "one" if apart == 1 else f"a module at {apart:g} times",
    }


def _module(module: ModuleSpec) -> dict[str, str]:
    memory: Any = module.memory
    gate: Any = module.gate
    how = getattr(memory, "score", None) or getattr(memory, "form", None)
    return {
        "placement": f"{module.placement}, {module.merge}",
        "site": module.site,
        "memory": f"{memory.kind}{f', {how}' if how else ''}",
        "memory shared per": getattr(memory, "per", "") or ABSENT,
        "feature map": module.feature_map.kind if module.feature_map else "none",
        "query": str(module.query.source),
        "query norm": module.query.norm,
        "gate": " ".join(str(part) for part in (gate.kind, getattr(gate, "activation", "")) if part),
        "layers": str(module.scope.layers) if isinstance(module.scope.layers, str) else "some",
    }


def _short(module: ModuleSpec) -> str:
    return f"{module.merge} {module.memory.kind}" if module.memory.kind != "none" else str(module.merge)

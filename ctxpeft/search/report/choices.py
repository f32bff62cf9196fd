"""What each design chose, in the words of the algebra, and the scores that came with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ctxpeft.search.outcome import Row
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.module import ModuleSpec


@dataclass(frozen=True)
class Choice:
    """A question with its answers, best mean first, each with the rung's objective of every design that gave it."""

    question: str
    values: list[tuple[str, list[float]]]


def choices_of(rows: Sequence[Row]) -> list[Choice]:
    """The questions that trained designs answered in two ways or more; the wider apart the means, the earlier.

    Raw means: a question that goes with another one shares its effect.
    """
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.rung is None or row.anchor or row.outcome not in ("completed", "pruned"):
            continue
        for question, answer in answers(row).items():
            table[question][answer].append(row.rung)
    found = [
        Choice(question, sorted(values.items(), key=lambda item: fmean(item[1])))
        for question, values in table.items()
        if len(values) > 1
    ]
    return sorted(found, key=lambda c: fmean(c.values[0][1]) - fmean(c.values[-1][1]))


def answers(row: Row) -> dict[str, str]:
    """The design's first module, and what stands beside it."""
    variant = load_variant(row.variant)
    if not variant.modules:
        return {}
    first = _module(variant.modules[0])
    beside = [_short(module) for module in variant.modules[1:]]
    return {**first, "second module": " + ".join(beside) or "none"}


def _module(module: ModuleSpec) -> dict[str, str]:
    memory: Any = module.memory
    gate: Any = module.gate
    how = getattr(memory, "score", None) or getattr(memory, "form", None)
    return {
        "placement": f"{module.placement}, {module.merge}",
        "site": module.site,
        "memory": f"{memory.kind}{f', {how}' if how else ''}",
        "memory shared per": getattr(memory, "per", "") or "does not apply",
        "feature map": module.feature_map.kind if module.feature_map else "none",
        "query": str(module.query.source),
        "query norm": module.query.norm,
        "gate": " ".join(str(part) for part in (gate.kind, getattr(gate, "activation", "")) if part),
        "layers": str(module.scope.layers) if isinstance(module.scope.layers, str) else "some",
    }


def _short(module: ModuleSpec) -> str:
    return f"{module.merge} {module.memory.kind}" if module.memory.kind != "none" else str(module.merge)

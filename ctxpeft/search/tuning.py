"""What tuning the learning rates cost and brought: grids that widened at the rung, finalists tuned again in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ctxpeft.search.finals import Finals
from ctxpeft.search.objective import variant_of
from ctxpeft.search.outcome import Row, TaskScore
from ctxpeft.search.rates import Rates


@dataclass(frozen=True)
class Tuning:
    """Numbers about grids of several rates, one a design and task.

    grids: how many; widened: how many went beyond the rates they began with; moved: of those, where a rate beyond was
    the best at the rung; gains: by how much of itself its loss was lower there than the best of the first rates;
    edge: grids whose best is still the smallest or the largest tried. runs: runs to the rung; beyond: those of rates
    beyond the first. retuned: finalists and tasks whose rate was tuned once more in full, and how many took another.
    """

    grids: int
    widened: int
    moved: int
    gains: tuple[float, ...]
    edge: int
    runs: int
    beyond: int
    retuned: tuple[int, int] = (0, 0)


def tuning(rows: Sequence[Row], finals: Finals | None, rates: Rates) -> Tuning:
    """Count over the trials that trained. A repeated design is counted once, where it was trained."""
    grids = list(_grids(rows, rates))
    widened = [(tried, first) for tried, first in grids if len(tried) > len(first)]
    gains = [1 - min(tried.values()) / min(first.values()) for tried, first in widened if first]
    return Tuning(
        grids=len(grids),
        widened=len(widened),
        moved=sum(gain > 0 for gain in gains),
        gains=tuple(gain for gain in gains if gain > 0),
        edge=sum(_best(tried) in (min(tried), max(tried)) for tried, _ in grids),
        runs=sum(len(tried) for tried, _ in grids),
        beyond=sum(len(tried) - len(first) for tried, first in widened),
        retuned=_retuned(rows, finals) if finals else (0, 0),
    )


def in_words(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> str:
    """The numbers in sentences; "" where nothing widens or is tuned again, or the study does not say by which rates."""
    told = about.get("rates")
    if told is None:
        return ""
    rates = Rates.model_validate(told)
    found = tuning(rows, finals, rates)
    sentences = []
    if rates.widen and found.grids:
        text = (
            f"Of {found.grids} grids of learning rates {found.widened} had their best at the edge and were widened, "
            f"which took {found.beyond} of {found.runs} runs at the rung; {found.moved} found a better rate there"
        )
        if found.gains and about.get("objective") == "loss":
            text += f", at a loss {median(found.gains):.1%} lower at the median"
        sentences.append(f"{text}. {found.edge} end at an edge all the same.")
    count, moved = found.retuned
    if moved or (count and about.get("retune")):
        sentences.append(f"Tuned once more in full for the fresh seeds, {moved} of {count} rates moved.")
    return " ".join(sentences)


def _grids(rows: Sequence[Row], rates: Rates) -> Iterator[tuple[dict[float, float], dict[float, float]]]:
    """The values of the rates tried of each design and task that did not diverge, and those of the first ones."""
    for row in rows:
        if row.same_as is not None or not row.variant:
            continue
        first = set(rates.of(variant_of(row)))
        for score in row.tasks or [TaskScore("", row.rates)]:
            tried = {r.rate: r.value for r in score.rates if r.value is not None}
            if len(score.rates) > 1 and tried:
                yield tried, {rate: value for rate, value in tried.items() if rate in first}


def _best(tried: dict[float, float]) -> float:
    return min(sorted(tried), key=lambda rate: tried[rate])


def _retuned(rows: Sequence[Row], finals: Finals) -> tuple[int, int]:
    """How many rates of finalists were tuned in full, and how many of them came out another."""
    searched = {row.number: row for row in rows}
    pairs = [
        (searched[method.number].score_of(task).rate, rate)
        for method in finals.methods
        for task, rate in ([(t.task, t.rate) for t in method.tasks] or [("", method.rate)])
        if method.number in searched
    ]
    return len(pairs), sum(before != after for before, after in pairs)

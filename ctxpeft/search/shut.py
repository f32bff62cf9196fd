"""Choices that were shut out, mostly by the budget: every trial that had one was infeasible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctxpeft.search.outcome import Row

MOST = 5  # that are told
FEWEST = 2  # trials: one may have failed by what stood beside the choice


@dataclass(frozen=True)
class ShutOut:
    """An answer to a question of the space, in how many trials it stood, and why one of them could not be."""

    question: str
    answer: str
    trials: int
    reason: str


def shut_out(rows: Sequence[Row]) -> list[ShutOut]:
    """The answers of which no trial was feasible, while another answer to the same question was.

    What was only asked below such an answer, or stood beside it by chance in all its trials, is not told again.
    """
    designs = [row for row in rows if not row.anchor and row.outcome not in ("running", "interrupted")]
    asked: dict[tuple[str, str], list[Row]] = {}
    for row in designs:
        for question, answer in row.choices.items():
            if isinstance(answer, str | bool):  # numbers are sizes, and each is another
                asked.setdefault((question, str(answer)), []).append(row)
    feasible = {question for row in designs if row.outcome != "infeasible" for question in row.choices}
    never = {
        key: {row.number: row for row in found}
        for key, found in asked.items()
        if len(found) >= FEWEST and key[0] in feasible and all(row.outcome == "infeasible" for row in found)
    }
    told: list[ShutOut] = []
    covered: list[set[int]] = []
    for (question, answer), found in sorted(never.items(), key=lambda item: -len(item[1])):
        numbers = set(found)
        if not any(numbers <= other for other in covered):
            covered.append(numbers)
            told.append(ShutOut(question, answer, len(numbers), _reason(found)))
    return told


def _reason(rows: Mapping[int, Row]) -> str:
    """That of the first row, one that the budget shut out where there is any."""
    first = min(rows, key=lambda number: (rows[number].rule != "budget", number))
    return rows[first].reason


def in_words(found: Sequence[ShutOut]) -> list[str]:
    """One sentence an answer, the most frequent first."""
    sentences = [
        f"No design with {one.question} = {one.answer} was feasible, so none was tried ({one.trials} trials; "
        f"for example: {one.reason})."
        for one in found[:MOST]
    ]
    if len(found) > MOST:
        sentences.append(f"The same holds for {len(found) - MOST} more choices.")
    return sentences

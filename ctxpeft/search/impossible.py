"""A space of which no design can be: told with the reasons, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ctxpeft.search.loop import exhausted
from ctxpeft.search.outcome import Row

MOST = 3  # reasons that are told


def counted(refused: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    """Why designs could not be and how often, the most frequent first, from each one's rule and reason.

    What cannot meet the budget is one reason, whatever the counts.
    """
    return Counter(
        "budget cannot be met" if rule == "budget" else reason for rule, reason in refused
    ).most_common()


def impossible(space: str, refused: Sequence[tuple[str, str]]) -> str:
    """The sentence about a space whose every drawn design was refused, by rule and reason."""
    reasons = counted(refused)
    told = [f"{count} of {len(refused)}: {reason}" for reason, count in reasons[:MOST]]
    if len(reasons) > MOST:
        told.append(f"and {len(reasons) - MOST} more reasons")
    budget = next((reason for rule, reason in refused if rule == "budget"), "")
    example = f" (the budget, for example: {budget})" if budget else ""
    return (
        f"{space}: no design of this space is feasible on this model: {'; '.join(told)}{example}; widen 'modules' or "
        "change 'budget' or the constraints"
    )


def why_impossible(space: str, rows: Sequence[Row]) -> str:
    """The sentence where a search gave up with infeasible designs alone; "" where some design could be."""
    designs = [row for row in rows if not row.anchor and row.outcome not in ("running", "interrupted")]
    if not exhausted(list(rows)) or any(row.outcome != "infeasible" for row in designs):
        return ""
    return impossible(space, [(row.rule, row.reason) for row in designs])

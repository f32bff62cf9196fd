"""The table a search ends with, on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxpeft.cli._output import stdout
from ctxpeft.cli._tables import print_table

if TYPE_CHECKING:
    from ctxpeft.search.outcome import Row
    from ctxpeft.search.run import Found

MOST = 10


def print_found(found: Found) -> None:
    """The best trials, the answer, and where the files are."""
    from ctxpeft.search.outcome import counts, ranking, tried
    from ctxpeft.search.report.words import answer

    objective = str(found.about["objective"])
    ranked = ranking(found.rows)
    shown = ranked[:MOST] + [row for row in ranked[MOST:] if row.anchor]
    title = f"{len(tried(found.rows))} designs trained; held-out {objective}, best first"
    print_table(
        ("trial", "design", "parameters", "rate", "rung", objective, "seconds"),
        [_cells(row, objective) for row in shown],
        title,
    )
    told = ", ".join(f"{n} {what}" for what, n in sorted(counts(found.rows).items()))
    print(f"\n{told}\n" if told else "")
    console = stdout()
    for sentence in answer(found.rows, found.finals, found.about):
        console.print(sentence, markup=False)
    print(f"\nreport  {found.out / 'report.html'}")
    if found.best is not None:
        print(f"best    {found.out / 'best.yaml'}")


def _cells(row: Row, objective: str) -> Sequence[str]:
    from ctxpeft.search.score import natural

    assert row.value is not None
    return (
        str(row.number),
        f"{row.anchor} (anchor)" if row.anchor else " + ".join(row.templates),
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.rate:g}{'*' if row.rate_at_edge else ''}",
        f"{natural(row.rung, objective):.4f}" if row.rung is not None else "",
        f"{natural(row.value, objective):.4f}",
        f"{row.seconds:.0f}",
    )

"""The live panel of a search on a terminal: a bar with the time left, the best so far, counts, what goes on now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxpeft.search.outcome import Row, counts, ranking
from ctxpeft.search.score import natural

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

BEST = 5
AROUND = 9  # lines of the panel beside the rows of its table
NARROW = 80
GAP = 2
TOLD = ("completed", "pruned", "failed", "memoised", "infeasible", "interrupted")


def panel(
    rows: Sequence[Row],
    objective: str,
    done: int,
    total: int,
    left: str,
    activity: str,
    width: int = 100,
    height: int = 25,
) -> RenderableType:
    """The panel for a terminal of `width` by `height` characters."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=max(1, total), completed=done, width=min(32, width // 4)), Text(left))
    most = max(1, min(BEST, height - AROUND))
    best = _best(rows, objective, most, width) if ranking(rows) else Text("no design is done yet")
    return Group(bar, best, Text(tally(rows), style="dim"), Text(activity, no_wrap=True, overflow="ellipsis"))


def tally(rows: Sequence[Row]) -> str:
    """`5 completed, 7 pruned, 1 failed`: designs beyond the anchors."""
    found = counts(rows)
    return (
        ", ".join(f"{found[what]} {what}" for what in TOLD if what in found)
        or "no design beyond the anchors yet"
    )


def running(rows: Sequence[Row]) -> str:
    """What other processes train at this moment."""
    now = [
        row.anchor or f"trial {row.number}" for row in rows if row.outcome == "running" and row.fingerprint
    ]
    return f"training {', '.join(now)}" if now else ""


def _best(rows: Sequence[Row], objective: str, most: int, width: int) -> Table:
    from rich.table import Table

    kept = 5 if width >= NARROW else 1
    headings = (objective, "at the rung", "rate", "parameters", "seconds")[:kept]
    lines = [(row, _numbers(row, objective)[:kept]) for row in ranking(rows)[:most]]
    widths = [
        max(map(len, column)) for column in zip(headings, *(numbers for _, numbers in lines), strict=True)
    ]
    room = max(8, width - sum(widths) - GAP * (len(widths) + 2))
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("", justify="right")
    table.add_column("best so far", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, (row, numbers) in enumerate(lines, 1):
        name = f"{row.anchor} (anchor)" if row.anchor else f"trial {row.number}: {' + '.join(row.templates)}"
        cut = name if len(name) <= room else f"{name[: room - 1]}…"
        style = "bold" if place == 1 else "dim" if row.anchor else ""
        table.add_row(str(place), cut, *numbers, style=style)
    return table


def _numbers(row: Row, objective: str) -> tuple[str, ...]:
    """The cells beside a trial's name, the most important first."""
    assert row.value is not None
    return (
        f"{natural(row.value, objective):.4f}",
        f"{natural(row.rung, objective):.4f}" if row.rung is not None else "",
        row.rate_text,
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.seconds:.0f}",
    )

"""Tables: ruled on a terminal, aligned plain lines when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.table import Table

from ctxpeft.cli._output import stdout
from ctxpeft.errors import one_line


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text under their headers; piped, a cell is never cut and a row is always one line."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        if title:
            print(title)
        for line in aligned([headers, *rows]):
            print(line)
        return
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, header in enumerate(headers):
        table.add_column(header, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(_literal(cell) for cell in row))
    stdout().print(table)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Each row as one line, columns two spaces apart."""
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (c + " " * (w - cell_len(c)) for c, w in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _literal(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)

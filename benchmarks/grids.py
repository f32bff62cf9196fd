"""Tables of results, for a terminal and for a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A title, the names of the columns, cells."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """A table of Markdown under its title."""
        lines = [
            f"**{self.title}**",
            "",
            "| " + " | ".join(self.header) + " |",
            "|---|" + "---:|" * (len(self.header) - 1),
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
        return "\n".join(lines)

    def text(self) -> str:
        """Columns of even width."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        padded = (
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        return "\n".join([self.title, *padded])


def grid(table: Record) -> Grid:
    """A table of results as it is printed."""
    return KINDS[table["kind"]](table)


def spread(values: Sequence[float] | None) -> str:
    """Median and quartiles."""
    if values is None:
        return ""
    median, low, high = values
    return f"{median:.3f} [{low:.3f}, {high:.3f}]"


def milliseconds(values: Sequence[float] | None) -> str:
    """A median."""
    return "" if values is None else f"{values[0]:.4g}"


def title(table: Record, what: str) -> str:
    """What was measured on which model with which batch."""
    rows = f"{table['batch']} × {table['tokens']} tokens"
    extras = [table["dtype"]] if table.get("dtype", "float32") != "float32" else []
    extras += ["torch.compile"] if table.get("compiled") else []
    return ", ".join([f"{what}: {table['model']}", rows, *extras])


def _times(row: Record) -> list[str]:
    """CPU and wall time, each with its ratio."""
    return [
        cell for c in ("cpu", "wall") for cell in (milliseconds(row[f"{c}_ms"]), spread(row[f"{c}_ratio"]))
    ]


def _timed(table: Record, what: str) -> Grid:
    decode = table["kind"] == "decode"
    predicted = any("predicted_flops" in row for row in table["rows"])
    base = table["rows"][0].get("predicted_flops")
    header = ["", "CPU ms", "ratio of CPU time", "wall ms", "ratio of wall time"]
    header += ["predicted FLOPs, ratio", "ps a predicted FLOP"] if predicted else []
    header += ["tokens in the cache"] if decode else []
    rows = []
    for row in table["rows"]:
        cells = [row["name"], *_times(row)]
        if predicted:
            flops = row.get("predicted_flops")
            cells += (
                ["", ""]
                if flops is None
                else [f"{flops / base:.4f}", f"{1e9 * row['cpu_ms'][0] / flops:.1f}"]
            )
        cells += [str(row["cached_tokens"])] if decode else []
        rows.append(tuple(cells))
    return Grid(title(table, what), tuple(header), rows)


def step(table: Record) -> Grid:
    """Training steps."""
    return _timed(table, "Training step")


def decode(table: Record) -> Grid:
    """Decoded tokens."""
    return _timed(table, "One decoded token after a prompt")


def prefill(table: Record) -> Grid:
    """Prompts that are read."""
    return _timed(table, "Reading a prompt")


def size(table: Record) -> Grid:
    """Memory, files, attaching and loading."""
    header = ("", "trainable", "peak of a step, MB", "ratio", "peak of a decoded token, MB", "ratio")
    header += ("adapter file, bytes", "attach, ms", "load, ms")
    rows = [
        (
            row["name"],
            f"{row['trainable']:,}",
            f"{row['peak_step_bytes'] / 1e6:.2f}",
            f"{row['peak_step_ratio']:.3f}",
            f"{row['peak_decode_bytes'] / 1e6:.3f}",
            f"{row['peak_decode_ratio']:.3f}",
            f"{row['file_bytes']:,}" if "file_bytes" in row else "",
            milliseconds(row.get("attach_ms")),
            milliseconds(row.get("load_ms")),
        )
        for row in table["rows"]
    ]
    return Grid(title(table, "Memory and files"), header, rows)


def answers(table: Record) -> Grid:
    """Steps on prompts with answers."""
    header = ("the head is read", "CPU ms", "ratio of CPU time", "wall ms", "ratio of wall time")
    header += ("peak of a step, MB", "ratio")
    rows = [
        (
            row["name"],
            *_times(row),
            f"{row['peak_step_bytes'] / 1e6:.1f}",
            f"{row['peak_step_ratio']:.3f}",
        )
        for row in table["rows"]
    ]
    return Grid(title(table, f"Training step, {table['labels']} labels a row"), header, rows)


def adapters(table: Record) -> Grid:
    """Many adapters in one batch."""
    header = ("adapters", "CPU ms", "ratio of CPU time", "wall ms", "ratio of wall time")
    rows = [
        (
            row["name"],
            *_times(row),
        )
        for row in table["rows"]
    ]
    return Grid(title(table, f"One decoded token of all rows, {table['variant']}"), header, rows)


def scaling(table: Record) -> Grid:
    """Milliseconds added to the floor along an axis; a column a value."""
    values = sorted({point["value"] for point in table["points"]})
    rows = []
    for variant in dict.fromkeys(point["variant"] for point in table["points"]):
        mine = {p["value"]: p["added_ms"] for p in table["points"] if p["variant"] == variant}
        rows.append((variant, *(spread(mine.get(value)) for value in values)))
    what = f"{table['axis']}: CPU milliseconds beyond the floor, {table['model']} of two layers"
    return Grid(what, (table["axis"], *map(str, values)), rows)


def profile(table: Record) -> Grid:
    """What is added to the floor, by operator."""
    header = ("", "Python calls", "operators", "operators, ms", "added, ms", "added", "largest differences")
    rows = []
    for row in table["rows"]:
        largest = ", ".join(
            f"{op['operator']} {op['added_ms']:+.3f} ms ({op['added_calls']:+d} calls)"
            for op in row["largest"]
        )
        rows.append(
            (
                row["name"],
                f"{row['python_calls']:,}",
                f"{row['operators']:,}",
                f"{row['operators_ms']:.2f}",
                f"{row['added_ms']:+.3f}",
                f"{row['added_share']:+.1%}",
                largest,
            )
        )
    return Grid(title(table, f"A {table['what']}"), header, rows)


def cold(table: Record) -> Grid:
    """Operators in a row, and amid a token."""
    header = ("", "called in a row, µs", "amid a token, µs", f"in {table['layers']} layers, share of a token")
    rows = [
        (
            row["name"],
            f"{row['row_us'][0]:.1f} [{row['row_us'][1]:.1f}, {row['row_us'][2]:.1f}]",
            f"{row['amid_us'][0]:.1f} [{row['amid_us'][1]:.1f}, {row['amid_us'][2]:.1f}]",
            f"{row['share_of_token']:.1%}",
        )
        for row in table["rows"]
    ]
    what = f"A read amid a token of {table['token_ms']:.4g} ms"
    return Grid(title(table, what), header, rows)


KINDS: dict[str, Callable[[Record], Grid]] = {
    "step": step,
    "decode": decode,
    "prefill": prefill,
    "size": size,
    "answers": answers,
    "adapters": adapters,
    "scaling": scaling,
    "profile": profile,
    "cold": cold,
}

"""What is aimed at, against what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.grids import Grid, Record, spread, title
from benchmarks.subjects import MATRICES, REPLACES, SLOTS

CLOCK = {"cpu": "cpu_ratio", "cuda": "wall_ratio"}
LIMITS = {"step": (1.03, 1.06), "decode": (1.02, 1.05)}
"""For matrix variants and for slots in the softmax."""
COMPILED = {"step": (1.03, 1.06), "decode": (1.02, 1.03)}
"""The same under torch.compile."""
ADAPTERS = 1.10


def targets(tables: list[Record], device: str) -> Grid:
    """A line a claim and table, met or missed by the median; quartiles beside it."""
    clock = CLOCK[device]
    lines = [*_floors(tables, clock), *_peers(tables, clock), *_adapters(tables, clock)]
    met = sum(line[-1] == "met" for line in lines)
    header = ("", "where", "target", "measured", "")
    return Grid(f"Targets: {met} of {len(lines)} met", header, lines)


def _verdict(value: float, limit: float) -> str:
    return "met" if value <= limit else "**missed**"


def _floors(tables: list[Record], clock: str) -> Iterator[tuple[str, ...]]:
    for table in tables:
        limits = (COMPILED if table.get("compiled") else LIMITS).get(table["kind"])
        if limits is None:
            continue
        for names, limit in zip((MATRICES, SLOTS), limits, strict=True):
            for row in table["rows"]:
                if row["name"] in names:
                    measured = row[clock]
                    where = title(table, table["kind"])
                    yield row["name"], where, f"≤ {limit}", spread(measured), _verdict(measured[0], limit)


def _peers(tables: list[Record], clock: str) -> Iterator[tuple[str, ...]]:
    for table in tables:
        by_name: dict[str, Any] = {row["name"]: row for row in table.get("rows", ())}
        for mine, theirs in REPLACES.items():
            if mine not in by_name or theirs not in by_name or table.get("compiled"):
                continue
            where = title(table, {"step": "step", "size": "peak of a step"}.get(table["kind"], ""))
            if table["kind"] == "step":
                a, b = by_name[mine][clock][0], by_name[theirs][clock][0]
            elif table["kind"] == "size":
                a, b = by_name[mine]["peak_step_ratio"], by_name[theirs]["peak_step_ratio"]
            else:
                continue
            yield mine, where, f"below {theirs}, {b:.3f}", f"{a:.3f}", _verdict(a, b)


def _adapters(tables: list[Record], clock: str) -> Iterator[tuple[str, ...]]:
    for table in tables:
        if table["kind"] != "adapters":
            continue
        for row in table["rows"][1:]:
            measured = row[clock]
            where = f"{title(table, 'decode')}, {row['name']}"
            verdict = _verdict(measured[0], ADAPTERS)
            yield table["variant"], where, f"≤ {ADAPTERS:.2f} of one", spread(measured), verdict

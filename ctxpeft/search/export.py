"""What a search leaves in its folder beside the study: best.yaml, trials.csv, study.json, finals.json."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxpeft.files import write_text
from ctxpeft.search.archive import Archive
from ctxpeft.search.finals import Finals
from ctxpeft.search.outcome import Row, front, ranking
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import TrainingHints, Variant

COLUMNS = (
    "number", "outcome", "name", "anchor", "templates", "parameters", "size", "rate", "rung", "value", "seconds",
    "same_as", "fingerprint", "reason",
)  # fmt: skip


def best_row(rows: Sequence[Row], finals: Finals | None) -> Row | None:
    """The design the search answers with: the winner of the finals, else the best on validation data."""
    designs = ranking(rows, anchors=False)
    if finals is not None:
        return next((row for row in designs if row.number == finals.winner), None)
    return designs[0] if designs else None


def best_variant(row: Row, about: dict[str, Any], finals: Finals | None = None) -> Variant:
    """The row's variant as `ctxpeft train` takes it, with the rate of its last runs and where it comes from."""
    again = [method.rate for method in finals.methods if method.number == row.number] if finals else []
    variant = load_variant(row.variant)
    return variant.model_copy(
        update={
            "name": f"found-{row.fingerprint[:8]}",
            "title": f"Found in space {about['space']}, {' + '.join(row.templates)}",
            "source": f"found by ctxpeft search {about['space']}, trial {row.number}, "
            f"on {about['model']} and {about['task']}",
            "regime": f"{row.parameters:,} trainable parameters on {about['model']}",
            "training": TrainingHints(learning_rate=next(iter(again), row.rate)),
        }
    )


def trials_csv(rows: Sequence[Row]) -> str:
    """One line a trial; `value` and `rung` are the objective, smaller is better.

    Everything that was measured has a column. Where several tasks are searched jointly, each adds columns of its own:
    `trec.rate`, `trec.rung`, `trec.value` and its metrics, such as `trec.accuracy`.
    """
    tables = [_more(row) for row in rows]
    more = list(dict.fromkeys(name for table in tables for name in table))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*COLUMNS, *more])
    for row, table in zip(rows, tables, strict=True):
        cells = [getattr(row, name) for name in COLUMNS]
        plain = [" + ".join(cell) if isinstance(cell, tuple) else cell for cell in cells]
        writer.writerow([*plain, *(table.get(name) for name in more)])
    return stream.getvalue()


def _write_front(folder: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """With several objectives, every design of the Pareto front as a variant."""
    if len(about.get("objectives", ())) < 2:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for row in front(rows):
        if not row.anchor:
            best_variant(row, about).to_yaml(folder / f"trial-{row.number}.yaml")


def _more(row: Row) -> dict[str, float | None]:
    return {name: value for name, value in row.objectives.items() if name != "parameters"} | {
        f"{score.task}.{name}": value
        for score in row.tasks
        for name, value in {
            "rate": score.rate,
            "rung": score.rung,
            "value": score.value,
            **score.metrics,
        }.items()
    }


def write_exports(out: Path, archive: Archive) -> None:
    """Write every export, each atomically."""
    rows, finals = archive.rows, archive.finals
    best = best_row(rows, finals)
    if best is not None:
        best_variant(best, archive.about, finals).to_yaml(out / "best.yaml")
    _write_front(out / "front", rows, archive.about)
    write_text(out / "trials.csv", trials_csv(rows))
    write_text(out / "study.json", archive.text())
    if finals is not None:
        write_text(out / "finals.json", json.dumps(finals.plain(), indent=1) + "\n")

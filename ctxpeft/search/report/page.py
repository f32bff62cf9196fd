"""The page: what the template shows, put together from rows and finals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxpeft.files import write_text
from ctxpeft.search.export import best_row, best_variant
from ctxpeft.search.finals import Finals
from ctxpeft.search.outcome import Row, counts, ranking, tried
from ctxpeft.search.report.choices import choices_of
from ctxpeft.search.report.pictures import effects, history, rung_against_full, size_against_score
from ctxpeft.search.report.words import answer, rung_in_words
from ctxpeft.search.score import natural
from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.load import load_variant

TEMPLATE = "page.html.j2"


def write_report(path: Path, rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> None:
    """Write the report, atomically."""
    write_text(path, render(rows, finals, about))


def render(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> str:
    """The report as HTML. It links to nothing outside itself."""
    import jinja2

    loader = jinja2.PackageLoader("ctxpeft.search.report", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(TEMPLATE).render(**context(rows, finals, about))


def context(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> dict[str, Any]:
    """Everything the template names."""
    objective = str(about["objective"])
    best = best_row(rows, finals)
    variant = best_variant(best, about) if best else None
    anchors = [row for row in rows if row.anchor and row.outcome in ("completed", "memoised", "failed")]
    return {
        "about": about,
        "objective": objective,
        "answer": answer(rows, finals, about),
        "best": best,
        "finals": finals,
        "yaml": variant.to_yaml() if variant else "",
        "equations": variant_equations(variant) if variant else [],
        "anchors": anchors,
        "counts": counts(rows),
        "tried": len(tried(rows)),
        "total": len([row for row in rows if not row.anchor]),
        "pictures": _pictures(rows, objective),
        "rung": rung_in_words(rows, about),
        "table": [_cells(row, objective) for row in _sorted(rows)],
        "refused": _refused(rows),
        "failed": [row for row in rows if row.outcome == "failed"],
    }


def _pictures(rows: Sequence[Row], objective: str) -> list[tuple[str, str, str]]:
    if not ranking(rows):
        return []
    note = (
        "Every trained design at the rung, best mean first; a bar is the mean, the number of designs stands behind the "
        "name. Means are raw: choices that come together share their effect."
    )
    drawn = [
        ("Progress of the search", history(rows, objective), "Anchors are trained first and never pruned."),
        ("Score by design choice", effects(choices_of(rows), objective), note),
        ("Size and score", size_against_score(rows, objective), "Completed trials."),
        ("What the rung promised", rung_against_full(rows, objective), ""),
    ]
    return [picture for picture in drawn if picture[1]]


def _sorted(rows: Sequence[Row]) -> list[Row]:
    order = {"completed": 0, "pruned": 1, "failed": 2, "memoised": 3, "infeasible": 4}
    return sorted(
        rows,
        key=lambda r: (order.get(r.outcome, 5), r.value if r.value is not None else r.rung or 0, r.number),
    )


def _cells(row: Row, objective: str) -> dict[str, Any]:
    equations = variant_equations(load_variant(row.variant)) if row.variant else []
    return {
        "number": row.number,
        "outcome": row.outcome,
        "name": row.anchor or " + ".join(row.templates) or row.name,
        "is_anchor": bool(row.anchor),
        "equations": equations,
        "parameters": row.parameters,
        "rate": row.rate,
        "edge": row.rate_at_edge,
        "rung": None if row.rung is None else natural(row.rung, objective),
        "value": None if row.value is None else natural(row.value, objective),
        "metrics": row.metrics,
        "seconds": row.seconds,
        "reason": row.reason,
    }


def _refused(rows: Sequence[Row]) -> list[tuple[str, int]]:
    tally = Counter(
        "the parameter budget cannot be met" if row.rule == "budget" else row.reason
        for row in rows
        if row.outcome == "infeasible"
    )
    return tally.most_common()

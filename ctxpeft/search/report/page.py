"""The page: what the templates show, put together from rows and finals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxpeft.analysis.table import p_value
from ctxpeft.files import write_text
from ctxpeft.search.anchors import size_in_words
from ctxpeft.search.export import best_row, best_variant
from ctxpeft.search.finals import Finals
from ctxpeft.search.outcome import Row, TaskScore, counts, ranking, tried
from ctxpeft.search.report import pictures, words
from ctxpeft.search.report.choices import choices_of
from ctxpeft.search.report.front import planes_of
from ctxpeft.search.report.importance import importance_of
from ctxpeft.search.report.maths import written
from ctxpeft.search.report.rules import facts_of, rules_of
from ctxpeft.search.report.scale import Scale, objectives_of, rung_scale_of, scale_of
from ctxpeft.search.tuning import in_words as tuning_in_words
from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.yaml_lines import dump_yaml

TEMPLATE = "page.html.j2"
OUTCOMES = ("completed", "pruned", "failed", "memoised", "infeasible", "interrupted", "running")
SECTIONS = (
    ("anchors", "Against the anchors"),
    ("design", "The design"),
    ("tried", "How many were tried"),
    ("front", "Pareto front"),
    ("history", "History"),
    ("importance", "What mattered"),
    ("choices", "Effect of each choice"),
    ("rules", "Construction guide"),
    ("rung", "The rung"),
    ("trials-section", "Every trial"),
    ("again", "To do it again"),
)


def write_report(path: Path, rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> None:
    """Write the report, atomically."""
    write_text(path, render(rows, finals, about))


def render(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> str:
    """The report as HTML. It links to nothing outside itself."""
    import jinja2

    loader = jinja2.PackageLoader("ctxpeft.search.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(TEMPLATE).render(**context(rows, finals, about)).lstrip()


def context(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> dict[str, Any]:
    """Everything the templates name."""
    scale, rung = scale_of(about, rows), rung_scale_of(about, rows)
    found = {
        "about": about,
        "objective": scale.objective,
        "scale": scale,
        "rung_scale": rung,
        "headline": words.headline(rows, finals, about),
        "tally": words.tally(finals) if finals else "",
        "remarks": words.remarks(rows, finals, about),
        "finals": finals,
        "corrected": bool(finals and finals.versus and finals.versus[0].adjusted is not None),
        "p_value": p_value,
        "anchors": [row for row in rows if row.anchor and row.outcome in ("completed", "memoised", "failed")],
        "published": {row.number: _published(row) for row in rows if row.anchor},
        "counts": counts(rows),
        "tried": len(tried(rows)),
        "rung": words.rung_in_words(rows, about),
        "tuning": tuning_in_words(rows, finals, about),
        **_answer(best_row(rows, finals), about, finals),
        **_pictures(rows, finals, about),
        **_choices(rows, rung),
        **_rules(rows, about),
        **_trials(rows, about),
    }
    there = {
        "anchors": found["best"],
        "design": found["best"],
        "front": found["fronts"],
        "history": found["history"],
    }
    return {**found, "sections": [(id_, title) for id_, title in SECTIONS if there.get(id_, True)]}


def _answer(best: Row | None, about: dict[str, Any], finals: Finals | None) -> dict[str, Any]:
    if best is None:
        return {"best": None}
    variant = best_variant(best, about, finals)
    return {
        "best": best,
        "retuned": _retuned(best, finals),
        "largest": max((r.rate for r in best.rates), default=None),
        "written": written(variant),
        "yaml": dump_yaml(variant.to_dict()),
    }


def _retuned(best: Row, finals: Finals | None) -> str:
    """The rates of the fresh runs, where they are not those chosen at the rung."""
    again = next((m for m in finals.methods if m.number == best.number), None) if finals else None
    if again is None:
        return ""
    own = [task.rate for task in again.tasks] or [again.rate]
    told = ", ".join(f"{rate:g}" for rate in own)
    return "" if told == best.rate_text else told


def _published(row: Row) -> str:
    return size_in_words(row.size, row.published)


def _pictures(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> dict[str, Any]:
    scale, rung = scale_of(about, rows), rung_scale_of(about, rows)
    done = ranking(rows)
    sizes = [row.parameters for row in done if row.parameters]
    near = "They stand at one budget" if sizes and max(sizes) <= 1.1 * min(sizes) else "Sizes differ"
    return {
        "against": pictures.against(finals.versus) if finals else "",
        "fronts": [
            (f"{scale.label.partition(' (')[0]} against {plane.title}", pictures.pareto(plane, scale))
            for plane in planes_of(rows, about)
        ],
        "front_note": f"{near}: {min(sizes):,} to {max(sizes):,} trainable parameters." if sizes else "",
        "history": pictures.history(rows, scale, rung) if done else "",
        "rung_picture": pictures.rung_against_full(rows, scale, rung),
    }


def _choices(rows: Sequence[Row], scale: Scale) -> dict[str, Any]:
    choices, importance = choices_of(rows), importance_of(rows)
    return {
        "choices": choices,
        "effects": pictures.effects(choices, scale),
        "importance": importance,
        "importance_note": words.importance_in_words(importance),
    }


def _rules(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    found = rules_of(rows, about)
    return {
        "guide_note": words.guide_in_words(found, about.get("guide")),
        "facts": facts_of(about).sentence(),
        "tested": [t for t in found if t.kept and t.broken],
        "untested": [t for t in found if bool(t.kept) != bool(t.broken)],
    }


def _trials(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    scale, rung = scale_of(about, rows), rung_scale_of(about, rows)
    metric = _metric(rows)
    wanted = [*objectives_of(about)[1:], *about.get("constraints", ())]
    more = [name for name in wanted if name != "parameters"]
    headings = (
        ("trial", True),
        ("outcome", False),
        ("design", False),
        ("parameters", True),
        ("rate", True),
        ("at the rung", True),
        ("full run", True),
        (f"validation {words.metric(metric)}" if metric else "", True),
        *((name, True) for name in more),
        ("seconds", True),
    )
    return {
        "columns": [column for column in headings if column[0]],
        "metric": metric,
        "more": more,
        "outcomes": [what for what in OUTCOMES if any(row.outcome == what for row in rows)],
        "table": [_cells(row, scale, rung) for row in _sorted(rows)],
        "failed": [row for row in rows if row.outcome == "failed"],
        "refused": _refused(rows),
    }


def _metric(rows: Sequence[Row]) -> str:
    """The first metric of the full runs that is no loss."""
    names = (name for row in rows for name in row.metrics)
    return next((name for name in names if "loss" not in name), "")


def _sorted(rows: Sequence[Row]) -> list[Row]:
    def key(row: Row) -> tuple[int, float, int]:
        value = row.value if row.value is not None else row.rung
        return OUTCOMES.index(row.outcome), value if value is not None else 0.0, row.number

    return sorted(rows, key=key)


def _cells(row: Row, scale: Scale, rung: Scale) -> dict[str, Any]:
    variant = load_variant(row.variant) if row.variant else None
    told = (f"{r.rate:g}: {'diverged' if r.value is None else f'{rung.of(r.value):.4f}'}" for r in row.rates)
    return {
        "number": row.number,
        "outcome": row.outcome,
        "name": row.anchor or " + ".join(row.templates) or row.name,
        "is_anchor": bool(row.anchor),
        "equations": variant_equations(variant) if variant else [],
        "yaml": dump_yaml(variant.to_dict()) if variant else "",
        "parameters": row.parameters,
        "rate": row.rate_text,
        "first_rate": row.rate,
        "rates": ", ".join(told),
        "tasks": [_task(score, rung) for score in row.tasks],
        "edge": row.rate_at_edge,
        "rung": None if row.rung is None else rung.of(row.rung),
        "value": None if row.value is None else scale.of(row.value),
        "metrics": row.metrics,
        "seconds": row.seconds,
        "objectives": row.objectives,
        "reason": row.reason or _violations(row),
    }


def _violations(row: Row) -> str:
    """Which constraints a finished trial breaks, so that it is not ranked."""
    return f"breaks a constraint: {', '.join(row.violations)}" if row.violations else ""


def _task(score: TaskScore, scale: Scale) -> str:
    """What a trial reached on one of several tasks."""
    parts = [f"rung {scale.of(score.rung):.4f}" if score.rung is not None else ""]
    parts += [f"full {scale.of(score.value):.4f}" if score.value is not None else ""]
    parts += [
        f"{words.metric(name)} {value:.4f}" for name, value in score.metrics.items() if "loss" not in name
    ]
    return f"{score.task}: {', '.join(part for part in parts if part)}"


def _refused(rows: Sequence[Row]) -> list[tuple[str, int]]:
    kinds = {
        "budget": "the parameter budget cannot be met",
        "constraint": "a constraint is broken before training",
    }
    tally = Counter(kinds.get(row.rule, row.reason) for row in rows if row.outcome == "infeasible")
    return tally.most_common()

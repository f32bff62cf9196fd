"""The table a search ends with, on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxpeft.cli._output import stdout
from ctxpeft.cli._tables import print_table

if TYPE_CHECKING:
    from ctxpeft.search.efficiency import Course, Efficiency
    from ctxpeft.search.finals import Finals
    from ctxpeft.search.outcome import Row
    from ctxpeft.search.run import Found

MOST = 10


def print_found(found: Found) -> None:
    """The best trials, the answer, and where the files are."""
    from ctxpeft.search.fidelity import fidelity, in_words
    from ctxpeft.search.outcome import counts, ranking, tried
    from ctxpeft.search.report.words import answer
    from ctxpeft.search.tuning import in_words as tuning_in_words

    objective = str(found.about["objective"])
    ranked = ranking(found.rows)
    shown = ranked[:MOST] + [row for row in ranked[MOST:] if row.anchor]
    title = f"{len(tried(found.rows))} designs trained; held-out {objective}, best first"
    tasks = [score.task for score in ranked[0].tasks] if ranked else []
    if tasks and objective == "loss":
        title += f"; {objective} is the geometric mean over tasks, relative to the frozen model"
    print_table(
        ("trial", "design", "parameters", "rate", "rung", objective, *tasks, "seconds"),
        [_cells(row, objective) for row in shown],
        title,
    )
    if any(row.rate_at_edge for row in shown):
        print("* the smallest or largest rate that was tried: a wider grid (rates:) may do better")
    if len(found.about.get("objectives", ())) > 1:
        _print_front(found)
    told = ", ".join(f"{n} {what}" for what, n in sorted(counts(found.rows).items()))
    print(f"\n{told}\n" if told else "")
    console = stdout()
    for sentence in answer(found.rows, found.finals, found.about):
        console.print(sentence, markup=False)
    if found.finals is not None and found.finals.by_task:
        _print_by_task(found.finals)
    fidelity_said = in_words(fidelity(found.rows, float(found.about["keep"])))
    for said in (fidelity_said, tuning_in_words(found.rows, found.finals, found.about)):
        print(f"{said}\n" if said else "", end="")
    print(f"\nreport  {found.out / 'report.html'}")
    if found.best is not None:
        print(f"best    {found.out / 'best.yaml'}")


def _print_front(found: Found) -> None:
    """What no other trial beats in every objective."""
    from ctxpeft.search.measures import shown
    from ctxpeft.search.outcome import front

    names = [*found.about["objectives"], *found.about["constraints"]]
    print_table(
        ("trial", "design", *names),
        [
            (
                str(row.number),
                f"{row.anchor} (anchor)" if row.anchor else " + ".join(row.templates),
                *(shown(name, row.objectives[name]) for name in names),
            )
            for row in front(found.rows)
        ],
        f"The Pareto front in {', '.join(found.about['objectives'])}",
    )


def _print_by_task(finals: Finals) -> None:
    """The winner against each anchor, task by task."""
    from ctxpeft.analysis.table import p_value
    from ctxpeft.search.report.words import interval

    print_table(
        ("task", "anchor", "metric", "winner", "anchor's", "difference [95 %]", "p (Holm)", "verdict"),
        [
            (
                v.task,
                v.anchor,
                v.metric,
                f"{v.winner:.4f}",
                f"{v.other:.4f}",
                interval(v),
                p_value(v.adjusted),
                v.verdict,
            )
            for v in finals.by_task
        ],
        f"On each task, {finals.split} data, mean of {len(finals.seeds)} fresh seeds",
    )


def _parameters(row: Row) -> str:
    """The count; an anchor that stands at another size than it was published with says so."""
    if not row.parameters:
        return ""
    from ctxpeft.search.anchors import size_in_words

    words = size_in_words(row.size, row.published)
    return f"{row.parameters:,}{f' ({words})' if words else ''}"


def _cells(row: Row, objective: str) -> Sequence[str]:
    from ctxpeft.search.score import natural

    assert row.value is not None
    return (
        str(row.number),
        f"{row.anchor} (anchor)" if row.anchor else " + ".join(row.templates),
        _parameters(row),
        f"{row.rate_text}{'*' if row.rate_at_edge else ''}",
        f"{natural(row.rung, objective):.4f}" if row.rung is not None else "",
        f"{natural(row.value, objective):.4f}",
        *(f"{natural(score.value or 0.0, objective):.4f}" for score in row.tasks),
        f"{row.seconds:.0f}",
    )


def print_efficiency(found: Efficiency) -> None:
    """Studies side by side: the designs each had to train to reach each target."""
    from ctxpeft.search.score import natural

    names = [f"{name} ({natural(value, found.objective):.4f})" for name, value in found.targets.items()]
    print_table(
        ("study", "space", "sampler", "guide", "seed", "designs", "at no cost", "best", *names),
        [
            (
                c.name,
                c.space,
                c.sampler,
                "on" if c.guide else "off",
                str(c.seed),
                str(c.designs),
                str(sum(c.outcomes.get(what, 0) for what in ("infeasible", "memoised"))),
                f"{natural(c.best[-1], found.objective):.4f}"
                if c.best and c.best[-1] is not None
                else "none",
                *(_needed(c, value) for value in found.targets.values()),
            )
            for c in found.courses
        ],
        f"Designs trained until the held-out {found.objective} reached a target",
    )


def _needed(course: Course, target: float) -> str:
    needed = course.needed(target)
    return str(needed) if needed is not None else f"not in {course.designs}"

"""How often the rung was wrong: its order against that of the full runs, and what became of designs it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxpeft.search.outcome import Row


@dataclass(frozen=True)
class Fidelity:
    """Numbers about the first rung.

    trained: trials with a full run; pairs: of those, and how many the rung had in the wrong order. That is among
    trials that passed, mostly. audited: designs it would have stopped that were trained all the same; mistaken: those
    of them that ended among the better `keep` of the others; best_missed: those that beat every other design.
    """

    trained: int
    pairs: int
    wrong: int
    spearman: float | None
    audited: int
    mistaken: int
    best_missed: int


def fidelity(rows: Sequence[Row], keep: float) -> Fidelity:
    """Measure it on the finished trials; ties count as right."""
    done = [r for r in rows if r.outcome == "completed" and r.value is not None and r.levels]
    points = [(r.levels[0], r.value or 0.0) for r in done]
    pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :]]
    wrong = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs)
    passed = sorted(r.value or 0.0 for r in done if not r.audited)
    audited = [r.value or 0.0 for r in done if r.audited]
    bar = passed[max(0, int(keep * len(passed) + 0.999999) - 1)] if passed else float("-inf")
    designs = [r.value or 0.0 for r in done if not r.audited and not r.anchor]
    best = min(designs, default=float("-inf"))
    return Fidelity(
        trained=len(done),
        pairs=len(pairs),
        wrong=wrong,
        spearman=_spearman(points),
        audited=len(audited),
        mistaken=sum(value <= bar for value in audited),
        best_missed=sum(value < best for value in audited),
    )


def in_words(found: Fidelity) -> str:
    """The numbers in a sentence; "" while there are too few."""
    if found.trained < 4:
        return ""
    text = f"The rung had {found.wrong} of {found.pairs} pairs of fully trained trials in the wrong order."
    if found.audited:
        text += (
            f" Of {found.audited} designs it stopped that were trained all the same, {found.mistaken} ended among the "
            f"better ones and {found.best_missed} beat all others."
        )
    return text


def _spearman(points: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation of the rung with the full run; None for fewer than three trials or without any spread."""
    if len(points) < 3 or any(len({p[i] for p in points}) < 2 for i in (0, 1)):
        return None
    from scipy.stats import spearmanr

    return round(float(spearmanr(*zip(*points, strict=True)).statistic), 4)

"""How many designs a study needed to get somewhere: what a sampler, a guide or a space is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.archive import Archive
from ctxpeft.search.outcome import counts, ranking, tried
from ctxpeft.search.score import stored
from ctxpeft.search.storage import difference

SAME = ("model", "task", "training")


@dataclass(frozen=True)
class Course:
    """One study as a course: `best[i]` is the best objective after i + 1 trained designs, None before the first.

    seconds: spent by then, anchors left out. outcomes: what became of all designs, those that cost nothing included.
    """

    name: str
    space: str
    sampler: str
    guide: bool
    seed: int
    best: list[float | None]
    seconds: list[float]
    outcomes: dict[str, int]

    @property
    def designs(self) -> int:
        """Designs trained beyond the anchors."""
        return len(self.best)

    def needed(self, target: float) -> int | None:
        """Designs trained until the objective was at most `target`; None where it never was."""
        return next((i for i, b in enumerate(self.best, 1) if b is not None and b <= target), None)


@dataclass(frozen=True)
class Efficiency:
    """Several studies against the same targets. targets: by name, smaller is better."""

    courses: list[Course]
    targets: dict[str, float]
    objective: str

    def plain(self) -> dict[str, Any]:
        """Plain data, with the designs needed."""
        return {
            "objective": self.objective,
            "targets": self.targets,
            "studies": [
                asdict(c) | {"needed": {name: c.needed(value) for name, value in self.targets.items()}}
                for c in self.courses
            ],
        }


def course_of(name: str, archive: Archive) -> Course:
    """The course of a study, designs in the order of their trials."""
    search = archive.described.get("search", {})
    best: list[float | None] = []
    seconds: list[float] = []
    for row in tried(archive.rows):
        last = best[-1] if best else None
        reached = row.value if row.outcome == "completed" else None
        best.append(min((v for v in (last, reached) if v is not None), default=None))
        seconds.append((seconds[-1] if seconds else 0.0) + row.seconds)
    return Course(
        name,
        str(archive.about.get("space", "")),
        str(search.get("sampler", "tpe")),
        bool(search.get("guide", True)),
        int(search.get("seed", 0)),
        best,
        seconds,
        counts(archive.rows),
    )


def compare_studies(
    archives: Sequence[tuple[str, Archive]], targets: Sequence[float] | None = None
) -> Efficiency:
    """Studies side by side.

    Args:
        archives: by the names they are shown with.
        targets: objective values to reach, with the sign they are shown with; left out, what each anchor reached (its
            best among the studies), and what every study reached.

    Raises:
        CtxpeftError: the studies differ in model, tasks, training or objective, so their numbers cannot be compared.
    """
    first_name, first = archives[0]
    for name, other in archives[1:]:
        for key in SAME:
            found = difference({key: first.described.get(key)}, {key: other.described.get(key)})
            if found:
                raise CtxpeftError(f"{first_name} was made with {found} in {name}: they cannot be compared")
    objectives = {str(archive.about["objective"]) for _, archive in archives}
    if len(objectives) > 1:
        raise CtxpeftError(f"the studies have different objectives: {', '.join(sorted(objectives))}")
    courses = [course_of(name, archive) for name, archive in archives]
    values = [value for course in courses for value in course.best if value is not None]
    kept = partial(stored, objective=first.about["objective"], among=values)
    wanted = (
        {f"{value:g}": kept(value) for value in targets} if targets else _usual_targets(archives, courses)
    )
    return Efficiency(courses, wanted, objectives.pop())


def _usual_targets(archives: Sequence[tuple[str, Archive]], courses: Sequence[Course]) -> dict[str, float]:
    found: dict[str, float] = {}
    for _, archive in archives:
        for row in ranking(archive.rows):
            if row.anchor and row.value is not None:
                found[row.anchor] = min(row.value, found.get(row.anchor, row.value))
    reached = [course.best[-1] for course in courses if course.best and course.best[-1] is not None]
    if len(reached) == len(courses):
        found["all reached"] = max(value for value in reached if value is not None)
    return dict(sorted(found.items(), key=lambda item: -item[1]))

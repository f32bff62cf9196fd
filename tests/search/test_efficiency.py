"""How many designs it took: counted on the course of the best, for studies that can be compared."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import pytest

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.archive import Archive
from ctxpeft.search.efficiency import compare_studies, course_of
from ctxpeft.search.outcome import tried
from ctxpeft.search.run import Found
from ctxpeft.search.score import natural


def changed(archive: Archive, part: str, **values: object) -> Archive:
    """The archive as if it had been made with other settings."""
    described = {**archive.described, part: {**archive.described[part], **values}}
    return replace(archive, described=described)


def test_the_course_is_the_best_so_far(found: Found) -> None:
    course = course_of("tiny", found.archive)
    values = [row.value if row.outcome == "completed" else None for row in tried(found.rows)]
    assert course.designs == len(values)
    for index, best in enumerate(course.best):
        seen = [v for v in values[: index + 1] if v is not None]
        assert best == (min(seen) if seen else None)
    done = [b for b in course.best if b is not None]
    assert course.needed(done[-1]) == course.best.index(done[-1]) + 1
    assert course.needed(done[-1] - 1e-6) is None
    assert course.seconds[-1] == pytest.approx(sum(row.seconds for row in tried(found.rows)))


def test_targets_are_the_anchors_and_what_all_reached(found: Found) -> None:
    fewer = replace(found.archive, trials=found.archive.trials[:-2])
    result = compare_studies([("all", found.archive), ("fewer", fewer)])
    anchors = {row.anchor: row.value for row in found.rows if row.anchor}
    reached = [course.best[-1] for course in result.courses]
    assert result.targets == {**anchors, "all reached": max(v for v in reached if v is not None)}
    needed = [course.needed(result.targets["all reached"]) for course in result.courses]
    assert all(n is not None for n in needed)
    assert compare_studies([("all", found.archive)], [5.5]).targets == {"5.5": 5.5}


def test_a_target_has_the_sign_that_is_shown(found: Found) -> None:
    """Metrics that are better when greater are kept negated."""
    trials = [copy(trial) for trial in found.archive.trials]
    for trial in trials:
        if "value" in trial.user_attrs:
            trial.user_attrs = trial.user_attrs | {"value": -1 / trial.user_attrs["value"]}
    metric = replace(found.archive, trials=trials, about={**found.about, "objective": "metric"})
    best = natural(compare_studies([("a", metric)]).courses[0].best[-1] or 0.0, "metric")
    result = compare_studies([("a", metric)], [best, best + 0.01])
    needed = [result.courses[0].needed(value) for value in result.targets.values()]
    assert list(result.targets) == [f"{best:g}", f"{best + 0.01:g}"]
    assert needed[0] is not None
    assert needed[1] is None


def test_samplers_guides_and_seeds_may_differ(found: Found) -> None:
    other = changed(found.archive, "search", sampler="random", guide=False, seed=3)
    courses = compare_studies([("tpe", found.archive), ("random", other)]).courses
    assert [(c.sampler, c.guide, c.seed) for c in courses] == [("tpe", True, 0), ("random", False, 3)]


def test_what_cannot_be_compared_is_refused(found: Found) -> None:
    longer = changed(found.archive, "training", steps=60)
    with pytest.raises(
        CtxpeftError, match=r"a was made with training.steps = 6, and is now asked for 60 in b"
    ):
        compare_studies([("a", found.archive), ("b", longer)])
    other = replace(found.archive, about={**found.about, "objective": "metric"})
    with pytest.raises(CtxpeftError, match="different objectives: loss, metric"):
        compare_studies([("a", found.archive), ("b", other)])

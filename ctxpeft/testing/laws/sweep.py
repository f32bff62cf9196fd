"""Problems and choices without hypothesis: every combination of choices, each on a problem drawn evenly."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from ctxpeft.testing.heads import MASKS, Problem
from ctxpeft.testing.laws.law import AlgebraLaw, Interval


def sweep(
    law: AlgebraLaw, least: int, modules: Sequence[Any] | None = None
) -> Iterator[tuple[Problem, dict[str, Any]]]:
    """At least `least` cases of a law, the same every time; `modules` in place of ours."""
    draw = random.Random(law.id)
    finite = {
        name: list(modules if name == "module" and modules is not None else choice)
        for name, choice in law.choices.items()
        if not isinstance(choice, Interval)
    }
    combinations = [dict(zip(finite, values, strict=True)) for values in itertools.product(*finite.values())]
    for index in range(max(least, len(combinations)) if law.examples is None else law.examples):
        chosen = dict(combinations[index % len(combinations)])
        for name, choice in law.choices.items():
            if isinstance(choice, Interval):
                chosen[name] = draw.uniform(choice.low, choice.high)
        yield problem(law, draw), chosen


def problem(law: AlgebraLaw, draw: random.Random) -> Problem:
    """One problem of the kind that a law is stated for."""
    return Problem(
        seed=draw.randrange(10_000),
        batch=draw.randint(1, 2),
        kv_heads=draw.randint(1, 3),
        repeat=draw.randint(1, 3),
        tokens=draw.randint(1, 5),
        width=draw.randint(1, 5),
        value_width=draw.randint(1, 4),
        mask=draw.choice(tuple(law.masks) or MASKS),
        window=draw.randint(1, 4),
        past=draw.randint(0, 3) if law.past else 0,
        sinks=law.sinks and draw.random() < 0.5,
        softcap=1.5 if law.sinks and draw.random() < 0.5 else None,
    )

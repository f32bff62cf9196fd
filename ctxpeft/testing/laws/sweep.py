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
        yield Problem(**{name: draw.choice(values) for name, values in dimensions(law).items()}), chosen


def dimensions(law: AlgebraLaw) -> dict[str, Sequence[Any]]:
    """The problems that a law is stated for, field by field: MHA, GQA and MQA, its masks, sinks, softcap and past."""
    return {
        "seed": range(10_000),
        "batch": (1, 2),
        "kv_heads": (1, 2, 3),
        "repeat": (1, 2, 3),
        "tokens": range(1, 6),
        "width": range(1, 6),
        "value_width": range(1, 5),
        "mask": tuple(law.masks) or MASKS,
        "window": range(1, 5),
        "past": range(4) if law.past else (0,),
        "sinks": (False, True) if law.sinks else (False,),
        "softcap": (None, 1.5) if law.sinks else (None,),
    }

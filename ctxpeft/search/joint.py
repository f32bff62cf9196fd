"""Several tasks as one objective, none of them louder than the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

SMALLEST = 1e-9


def joint(values: Sequence[float], references: Sequence[float] | None) -> float:
    """The objective over tasks; smaller is better. One task keeps its own value.

    Losses are divided by what the frozen model loses on the task, and their geometric mean is taken: a loss that
    falls by a tenth counts the same whatever the task and its scale, and the order of designs does not depend on the
    references at all (Fleming and Wallace, "How not to lie with statistics", CACM 1986).

    Args:
        values: the held-out objective of each task.
        references: the frozen model's held-out loss on each; None for metrics, whose plain mean is taken.
    """
    if len(values) == 1:
        return values[0]
    if references is None:
        return fmean(values)
    logs = [math.log(max(v, SMALLEST) / r) for v, r in zip(values, references, strict=True)]
    return math.exp(fmean(logs))

"""A table of a comparison: the p-value that is printed and the verdict beside it agree."""

from __future__ import annotations

import pytest

from ctxpeft.analysis.comparison import Entry
from ctxpeft.analysis.statistics import Interval
from ctxpeft.analysis.table import p_value


def entry(p: float) -> Entry:
    interval = Interval(0.1, 0.0, 0.2)
    numbers = {"trainable": 1, "deployed": 1, "learning_rate": 0.1, "mean": 0.5, "seconds": 1.0}
    return Entry(
        "one",
        "1",
        **numbers,
        values=[],
        sd=None,
        interval=interval,
        metrics={},
        difference=interval,
        adjusted=p,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("p", "told"),
    [
        (0.0004, "<0.001"),
        (0.0494, "0.049"),
        (0.0496, "<0.05"),
        (0.04999999, "<0.05"),
        (0.05, "0.050"),
        (0.0504, "0.050"),
        (0.5, "0.500"),
    ],
)
def test_the_p_value_agrees_with_the_verdict(p: float, told: str) -> None:
    assert p_value(p) == told
    assert entry(p).significant == (told.startswith("<") or float(told) < 0.05)

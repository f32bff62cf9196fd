"""The objective in words: inside the search smaller is better, shown to people it has its own sign."""

from __future__ import annotations

from collections.abc import Sequence


def natural(value: float, objective: str) -> float:
    """The held-out number itself: metrics that are better when greater are kept negated."""
    return -value if objective in ("metric", "ood") and value < 0 else value


def stored(value: float, objective: str, among: Sequence[float]) -> float:
    """A number as people say it, with the sign that studies keep: that of the values it is compared with."""
    negated = objective in ("metric", "ood") and any(other < 0 for other in among)
    return -value if negated else value


def shown(value: float, objective: str) -> str:
    """The number with its name."""
    name = {"loss": "held-out loss", "metric": "held-out metric"}.get(objective, "out-of-distribution metric")
    return f"{name} {natural(value, objective):.4f}"

"""The objective in words: inside the search smaller is better, shown to people it has its own sign."""

from __future__ import annotations


def natural(value: float, objective: str) -> float:
    """The held-out number itself: metrics that are better when greater are kept negated."""
    return -value if objective == "metric" and value < 0 else value


def shown(value: float, objective: str) -> str:
    """The number with its name."""
    return f"held-out {'loss' if objective == 'loss' else 'metric'} {natural(value, objective):.4f}"

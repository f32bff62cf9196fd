"""The learning rate of a variant, found on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

STEP = 3.0
MAX_WIDENINGS = 2


@dataclass(frozen=True)
class RateTrial:
    """One rate tried: validation loss (nats) and main metric."""

    rate: float
    loss: float
    metric: float | None


def rate_grid(centre: float, count: int = 3) -> list[float]:
    """`count` rates around `centre`, a factor of three apart, ascending: 1e-3, 3e-3, 9e-3 around 3e-3."""
    return [centre * STEP ** (i - (count - 1) // 2) for i in range(count)]


def tune_rate(rates: list[float], measure: Callable[[float], RateTrial]) -> list[RateTrial]:
    """Try `rates`; while the best lies on the edge, one more beyond it, at most twice. Ascending by rate."""
    trials = {rate: measure(rate) for rate in rates}
    for _ in range(MAX_WIDENINGS):
        best = best_rate(list(trials.values())).rate
        beyond = {min(trials): min(trials) / STEP, max(trials): max(trials) * STEP}.get(best)
        if beyond is None or len(trials) < 2:
            break
        trials[beyond] = measure(beyond)
    return [trials[rate] for rate in sorted(trials)]


def best_rate(trials: list[RateTrial]) -> RateTrial:
    """The trial of lowest validation loss; the smaller rate where equal; one without a number comes last."""
    return min(trials, key=lambda t: (math.isnan(t.loss), t.loss, t.rate))

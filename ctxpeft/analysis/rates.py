"""The learning rate of a variant, found on validation data; the rule by which a grid of rates widens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEP = 3.0
MAX_WIDENINGS = 2


@dataclass(frozen=True)
class RateTrial:
    """One rate tried: validation loss (nats) and main metric."""

    rate: float
    loss: float
    metric: float | None


def rounded(rate: float) -> float:
    """A rate to three digits: what is told is what was run."""
    return float(f"{rate:.3g}")


def rate_grid(centre: float, count: int = 3) -> list[float]:
    """`count` rates around `centre`, a factor of three apart, ascending: 1e-3, 3e-3, 9e-3 around 3e-3."""
    return [rounded(centre * STEP ** (i - (count - 1) // 2)) for i in range(count)]


def beyond(tried: Sequence[float], best: float) -> float | None:
    """The next rate to try when the best is at an edge of those tried, as far away as its neighbour; else None."""
    if best not in (min(tried), max(tried)):
        return None
    return next_to(tried, best, down=best == min(tried))


def next_to(tried: Sequence[float], rate: float, down: bool) -> float | None:
    """The rate below or above one: of those tried, or as far beyond as its neighbour; None beside one alone."""
    rising = sorted({*tried, rate})
    place = rising.index(rate)
    before, after = rising[:place], rising[place + 1 :]
    if not down:
        before, after = after[::-1], before[::-1]
    if before:
        return before[-1]
    return rounded(rate * rate / after[0]) if after else None


def tune_rate(rates: list[float], measure: Callable[[float], RateTrial]) -> list[RateTrial]:
    """Try `rates`; while the best lies on the edge, one more beyond it, at most twice. Ascending by rate."""
    trials = {rate: measure(rate) for rate in rates}
    for _ in range(MAX_WIDENINGS):
        wider = beyond(list(trials), best_rate(list(trials.values())).rate)
        if wider is None:
            break
        trials[wider] = measure(wider)
    return [trials[rate] for rate in sorted(trials)]


def best_rate(trials: list[RateTrial]) -> RateTrial:
    """The trial of lowest validation loss; the smaller rate where equal; one without a number comes last."""
    return min(trials, key=lambda t: (math.isnan(t.loss), t.loss, t.rate))

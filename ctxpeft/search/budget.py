"""The parameter budget: a target that sizes are solved for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Trainable parameters wanted, within a share of them."""

    parameters: int
    tolerance: float
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)

    def meets(self, parameters: int) -> bool:
        """Whether a count is within the tolerance."""
        return abs(parameters - self.parameters) <= self.tolerance * self.parameters


def nearest(count: Callable[[int], int], low: int, high: int, wanted: int) -> tuple[int, int]:
    """The size in [low, high] whose count is nearest to `wanted`, and that count. `count` must be monotone.

    Of two sizes equally far the smaller one is taken. Asks for about log2(high - low) counts.
    """
    known = {low: count(low), high: count(high)}
    rising = known[high] >= known[low]
    a, b = low, high
    while b - a > 1:
        middle = (a + b) // 2
        known[middle] = count(middle)
        if (known[middle] < wanted) == rising:
            a = middle
        else:
            b = middle
    best = min((a, b), key=lambda size: (abs(known[size] - wanted), size))
    return best, known[best]

"""The Pareto front: trials that no other beats in one thing without losing in another."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other is as good as everywhere and better somewhere; smaller is better.

    Of equal points all are kept. Ordered by the first coordinate.
    """

    def beaten(point: Sequence[float]) -> bool:
        return any(
            all(a <= b for a, b in zip(other, point, strict=True)) and list(other) != list(point)
            for other in points
        )

    kept = [index for index, point in enumerate(points) if not beaten(point)]
    return sorted(kept, key=lambda index: (points[index][0], index))

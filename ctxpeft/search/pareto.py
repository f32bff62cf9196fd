"""Who beats whom in several objectives; smaller is better in each."""

from __future__ import annotations

from collections.abc import Sequence

Point = Sequence[float]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def ranks(points: Sequence[Point]) -> list[int]:
    """Each point's front: 0 where nothing dominates it, 1 where only points of front 0 do, and so on."""
    found = [-1] * len(points)
    left = set(range(len(points)))
    front = 0
    while left:
        here = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        for i in here:
            found[i] = front
        left -= set(here)
        front += 1
    return found


def ahead(points: Sequence[Point], mine: Point) -> int:
    """How many points lie on a front before mine. With one objective: how many are smaller."""
    found = ranks([*points, mine])
    return sum(rank < found[-1] for rank in found[:-1])

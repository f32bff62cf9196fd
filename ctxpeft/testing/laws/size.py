"""How large a batch a law is asked for, and in which order sizes are tried."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """A batch of `batch` rows with `tokens` tokens each, and `padded` padding positions where a law pads."""

    batch: int
    tokens: int
    padded: int = 0

    def __str__(self) -> str:
        text = f"batch {self.batch}, {self.tokens} token{'s' * (self.tokens != 1)}"
        return f"{text}, {self.padded} padded" if self.padded else text


LEAST, MOST = Size(1, 1), Size(2, 9)


def ascending(least: Size, most: Size) -> list[Size]:
    """Sizes from the smallest to the largest, one dimension growing at a time: tokens, then rows, then all."""
    few = [least._replace(tokens=t) for t in range(least.tokens, min(least.tokens + 3, most.tokens + 1))]
    rows = few[-1]._replace(batch=max(least.batch, min(2, most.batch)))
    sizes = [*few, rows, most]
    return list(dict.fromkeys(sizes))

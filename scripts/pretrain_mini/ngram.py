"""A byte n-gram model with interpolated Kneser-Ney smoothing: what counting alone achieves on the same text.

Kneser & Ney 1995; the interpolated form of Chen & Goodman 1999, one absolute discount an order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _grams(text: Codes, order: int) -> Codes:
    """The code of the `order` bytes that end at each position from `order - 1` on, the last byte lowest."""
    codes = np.zeros(len(text) - order + 1, dtype=np.int64)
    for offset in range(order):
        codes = codes << 8 | text[offset : len(text) - order + 1 + offset]
    return codes


def _lookup(keys: Codes, values: npt.NDArray[np.int64], queries: Codes) -> Floats:
    """Value of each query, 0 where the sorted `keys` lack it."""
    at = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[at] == queries, values[at], 0).astype(np.float64)


@dataclass(frozen=True)
class _Order:
    """Counts of one order: grams, and per context the sum of counts and the number of followers."""

    grams: Codes
    counts: npt.NDArray[np.int64]
    contexts: Codes
    totals: npt.NDArray[np.int64]
    followers: npt.NDArray[np.int64]
    discount: float


class KneserNey:
    """The model of a training text; `order` 5 predicts a byte from the four before it."""

    def __init__(self, text: bytes, order: int = 5) -> None:
        data = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
        self.orders: list[_Order] = []
        grams, counts = np.unique(_grams(data, order), return_counts=True)
        for length in range(order, 0, -1):
            self.orders.insert(0, self._order(grams, counts))
            grams, counts = np.unique(grams & ((1 << 8 * (length - 1)) - 1), return_counts=True)

    @staticmethod
    def _order(grams: Codes, counts: npt.NDArray[np.int64]) -> _Order:
        contexts, first, followers = np.unique(grams >> 8, return_index=True, return_counts=True)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = once / (once + 2 * twice) if once else 0.5
        return _Order(grams, counts, contexts, np.add.reduceat(counts, first), followers, discount)

    def bits(self, text: bytes) -> float:
        """Bits to code `text`, byte by byte; the first bytes use the orders their context allows."""
        data = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
        probability = np.full(len(data), 1 / 256)
        for length, order in enumerate(self.orders, start=1):
            grams = _grams(data, length)
            totals = _lookup(order.contexts, order.totals, grams >> 8)
            followers = _lookup(order.contexts, order.followers, grams >> 8)
            count = _lookup(order.grams, order.counts, grams)
            safe = np.maximum(totals, 1)
            lower = probability[length - 1 :]
            mixed = np.maximum(count - order.discount, 0) / safe + order.discount * followers / safe * lower
            probability[length - 1 :] = np.where(totals > 0, mixed, lower)
        return float(-np.log2(probability).sum())

"""The order of the training data: a function of the seed alone, so that every variant sees the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ctxpeft.tasks import Encoded


class OrderedExamples(Dataset[dict[str, Any]]):
    """Every example of every step of a run, in order: `steps * per_step` of them.

    The Trainer reads it sequentially, so resuming in the middle is exact. Each pass over the data is a new
    permutation. With `group`, batches hold examples of like length (windows of 50 batches are sorted, then the
    batches are shuffled).
    """

    def __init__(
        self, encoded: Sequence[Encoded], steps: int, per_step: int, seed: int, group: bool = False
    ) -> None:
        self.encoded = encoded
        self.per_step = per_step
        lengths = Lengths(encoded)
        self.order = data_order(lengths, steps * per_step, per_step, seed, group)
        read = np.array([lengths[i] for i in self.order])
        self._tokens = read.reshape(steps, per_step).sum(axis=1).cumsum()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.encoded[self.order[index]].features()

    def tokens_after(self, step: int) -> int:
        """Tokens read in the first `step` steps, padding left out."""
        return int(self._tokens[step - 1]) if step else 0


class Lengths:
    """How many tokens each example has, found when it is asked for: of many examples a run reads a part."""

    def __init__(self, encoded: Sequence[Encoded]) -> None:
        self._encoded = encoded
        self._known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> int:
        if index not in self._known:
            self._known[index] = len(self._encoded[index])
        return self._known[index]


def data_order(
    lengths: Sequence[int] | Lengths, total: int, per_batch: int, seed: int, group: bool = False
) -> list[int]:
    """`total` indices into the data, in the order they are trained on."""
    random = np.random.default_rng([seed, 0xDA7A])
    order: list[int] = []
    while len(order) < total:
        order.extend(random.permutation(len(lengths)).tolist())
    order = order[:total]
    if not group:
        return order
    grouped: list[int] = []
    window = 50 * per_batch
    for start in range(0, total, window):
        part = sorted(order[start : start + window], key=lambda i: -lengths[i])
        batches = [part[k : k + per_batch] for k in range(0, len(part), per_batch)]
        grouped += [i for b in random.permutation(len(batches)) for i in batches[b]]
    return grouped

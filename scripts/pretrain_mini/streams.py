"""Token streams and the order in which training reads them: a pure function of seed and step, so a run can resume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from scripts.pretrain_mini.tokenizer import BOS_ID, EOS_ID

Tokens = npt.NDArray[np.uint16]


def encode_stream(tokenizer: Tokenizer, documents: list[str]) -> Tokens:
    """All documents in one row of ids, each as `<s> ... </s>`."""
    pieces: list[int] = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        pieces += [BOS_ID, *encoding.ids, EOS_ID]
    return np.array(pieces, dtype=np.uint16)


@dataclass(frozen=True)
class Stream:
    """Windows of `length` tokens over a stream; every pass over it starts at another phase, in another order."""

    tokens: Tokens
    length: int
    seed: int

    @property
    def windows(self) -> int:
        """Windows in one pass."""
        return (len(self.tokens) - self.length) // self.length

    def rows(self, first: int, count: int) -> list[Tokens]:
        """The windows number `first` to `first + count - 1` of the endless sequence of passes."""
        return [self._row(index) for index in range(first, first + count)]

    def _row(self, index: int) -> Tokens:
        epoch, position = divmod(index, self.windows)
        random = np.random.default_rng([self.seed, epoch])
        phase = int(random.integers(0, self.length))
        start = phase + int(random.permutation(self.windows)[position]) * self.length
        return self.tokens[start : start + self.length]


@dataclass(frozen=True)
class Mixture:
    """Batches of `rows` windows of `length` tokens, a fixed number of them from the documentation."""

    books: Stream
    docs: Stream
    rows: int
    doc_rows: int

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs, targets) of a step, each (rows, length): a window shifted right behind `<s>`, and the window."""
        book_rows = self.rows - self.doc_rows
        picked = self.books.rows(step * book_rows, book_rows) + self.docs.rows(
            step * self.doc_rows, self.doc_rows
        )
        targets = torch.from_numpy(np.stack(picked).astype(np.int64))
        inputs = torch.cat([torch.full((self.rows, 1), BOS_ID), targets[:, :-1]], dim=1)
        return inputs, targets

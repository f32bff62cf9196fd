"""Some examples of a store, in order: what a split is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ctxpeft.tasks._example import Example
from ctxpeft.tasks._store import DIGEST, Store

Rows = NDArray[np.uint32]


class Examples(Sequence[Example]):
    """A sequence of examples that are made when they are asked for; equal to any sequence of equal examples.

    Args:
        store: where they are kept.
        begin, end: the numbers of the first of them and of the one behind the last; all from `begin` when left out.
    """

    def __init__(self, store: Store, begin: int = 0, end: int | None = None) -> None:
        self.store = store
        self.rows = np.arange(begin, len(store) if end is None else end, dtype=np.uint32)

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Examples:
        """`examples`, packed unless they are."""
        if isinstance(examples, cls):
            return examples
        store = Store()
        for example in examples:
            store.add(example)
        return cls(store)

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """One after the other."""
        if all(part.store is parts[0].store for part in parts):
            return parts[0]._with(np.concatenate([part.rows for part in parts])) if parts else cls(Store())
        return cls.of(example for part in parts for example in part)

    def chosen(self, which: NDArray[Any]) -> Examples:
        """Those at the indices `which`, or where the mask `which` is true."""
        return self._with(self.rows[which])

    def _with(self, rows: Rows) -> Examples:
        found = Examples(self.store, 0, 0)
        found.rows = rows
        return found

    def digest(self, index: int) -> bytes:
        """`Example.digest` of one."""
        return self.store.digest(int(self.rows[index]))

    def targets(self) -> NDArray[np.uint64]:
        """(n,) A hash of the target of each."""
        return np.frombuffer(self.store.targets, dtype=np.uint64)[self.rows]

    def unseen(self) -> NDArray[np.bool_]:
        """(n,) Whether the task keeps each from training."""
        return np.frombuffer(self.store.unseen, dtype=np.bool_)[self.rows]

    def keys(self) -> NDArray[np.uint64]:
        """(n, 2) The first 128 bits of the digest of each, equal where the texts are."""
        if not len(self):
            return np.zeros((0, 2), dtype=np.uint64)
        whole = np.frombuffer(self.store.digests, dtype=np.uint64).reshape(-1, DIGEST // 8)
        return np.stack([whole[self.rows, 0], whole[self.rows, 1]], axis=1)

    def distinct_targets(self) -> dict[str, int]:
        """Every target, and the index of the first example that has it."""
        _, first = np.unique(self.targets(), return_index=True)
        return {self[index].target: index for index in sorted(first.tolist())}

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return self._with(self.rows[index])
        return self.store.example(int(self.rows[index]))

    def __iter__(self) -> Iterator[Example]:
        return (self.store.example(int(row)) for row in self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} examples>"

    def __reduce__(self) -> Any:
        return Examples.of, (tuple(self),)

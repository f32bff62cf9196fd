"""Millions of examples, packed: some sixty bytes of each in memory, its texts in a spool."""

from __future__ import annotations

import hashlib
import struct
from array import array
from functools import lru_cache

from ctxpeft.tasks._example import Example
from ctxpeft.tasks._spool import Spool

DIGEST = 32  # bytes


class Store:
    """Examples in the order in which they were added; each is made anew when it is asked for."""

    def __init__(self) -> None:
        self.digests = bytearray()
        self.targets = array("Q")  # a hash of the target: to group by
        self.unseen = bytearray()
        self._ends = array("Q", [0])
        self._numbers = array("Q")
        self._sources = array("I")
        self._source: dict[tuple[tuple[str, ...], str, str], int] = {}
        self._by_number: list[tuple[tuple[str, ...], str, str]] = []
        self._texts = Spool()

    def __len__(self) -> int:
        return len(self.targets)

    def add(self, example: Example) -> None:
        """Append an example. Raises UnicodeEncodeError for half a character, and nothing is appended."""
        source = example.names, example.file, example.unit
        number = self._source.get(source)
        if number is None:
            number = self._source[source] = len(self._by_number)
            self._by_number.append(source)
        parts = [text.encode() for text in (example.target, *example.values, *example.choices)]
        self._texts.append(struct.pack(f"<{len(parts) + 1}I", len(parts), *map(len, parts)) + b"".join(parts))
        self._ends.append(len(self._texts))
        self._sources.append(number)
        self._numbers.append(example.number)
        self.digests += example.digest
        self.targets.append(target_hash(example.target))
        self.unseen.append(example.unseen)

    def example(self, row: int) -> Example:
        """The example that was added as number `row`, from 0."""
        record = self._texts.read(self._ends[row], self._ends[row + 1])
        (count,) = struct.unpack_from("<I", record)
        place = 4 * (count + 1)
        parts: list[str] = []
        for length in struct.unpack_from(f"<{count}I", record, 4):
            parts.append(record[place : place + length].decode())
            place += length
        names, file, unit = self._by_number[self._sources[row]]
        target, values, choices = parts[0], parts[1 : len(names) + 1], parts[len(names) + 1 :]
        return Example(
            names,
            tuple(values),
            target,
            file,
            unit,
            self._numbers[row],
            tuple(choices),
            bool(self.unseen[row]),
        )

    def digest(self, row: int) -> bytes:
        """`Example.digest`, without making the example."""
        return bytes(self.digests[DIGEST * row : DIGEST * (row + 1)])


@lru_cache(1024)
def target_hash(target: str) -> int:
    """Sixty-four bits that stand for a target."""
    return int.from_bytes(hashlib.blake2b(target.encode(), digest_size=8).digest(), "little")

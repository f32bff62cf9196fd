"""Bytes that are appended once and read at random: few of them in memory, many in a temporary file."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import IO

IN_MEMORY = 16 << 20  # bytes
_BUFFER = 1 << 20


class Spool:
    """Appended bytes. The file has no name and goes with the process; where there is no room for it, memory is used."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._most = in_memory
        self._tail = bytearray()  # what is not in the file
        self._start = 0  # bytes in the file
        self._file: IO[bytes] | None = None
        self._may_spill = sys.platform != "win32"  # which cannot read at a place without moving there

    def __len__(self) -> int:
        return self._start + len(self._tail)

    def append(self, data: bytes) -> None:
        """Put `data` at the end."""
        self._tail += data
        if len(self._tail) >= (_BUFFER if self._file else self._most) and self._may_spill:
            self._spill()

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`; processes and threads may read at once."""
        if start >= self._start or self._file is None:
            return bytes(self._tail[start - self._start : end - self._start])
        return os.pread(self._file.fileno(), end - start, start)

    def _spill(self) -> None:
        """Move what is in memory to the file; a record is never split, since one append is moved whole."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it stays open to the end
            written = 0
            with memoryview(self._tail) as view:
                while written < len(view):
                    written += os.pwrite(self._file.fileno(), view[written:], self._start + written)
        except OSError:  # no room, or no place for temporary files
            self._may_spill = False
            return
        self._start += len(self._tail)
        self._tail = bytearray()

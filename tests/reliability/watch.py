"""What Python does while a block runs: imports, executed code, processes, sockets, files opened."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

ACTS = (
    "import",
    "exec",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "marshal.",
    "shutil.",
    "urllib.",
)
HARMLESS = ("os.listdir", "os.scandir")

_recording: list[list[str]] = []
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _recording:
        return
    if (event == "open" and writes(arguments)) or (event.startswith(ACTS) and event not in HARMLESS):
        _recording[-1].append(f"{event} {str(arguments[:1])[:80]}")


def writes(arguments: tuple[Any, ...]) -> bool:
    """Whether the arguments of an `open` event ask for more than reading."""
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The acts of the block, as Python's audit events tell them: anything that runs code, reaches the network, starts a
    process or writes a file. Reading files is none of them."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    found: list[str] = []
    _recording.append(found)
    try:
        yield found
    finally:
        _recording.pop()

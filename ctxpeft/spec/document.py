"""A document read from a file: its data, the line of every key, and how a message says where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctxpeft.errors import one_line

__all__ = ["Document", "Path_", "dotted", "one_line"]

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """Plain data of a YAML file and the line (from 1) of each key path; data from Python has no lines."""

    data: Any
    lines: dict[Path_, int]
    name: str

    def line(self, path: Path_) -> int:
        """The line of a key path, or of the nearest ancestor that is written in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, path: Path_) -> str:
        """`file.yaml:7: modules[0].memory`, for messages."""
        place = f"{self.name}:{self.line(path)}" if self.lines else self.name
        return f"{place}: {dotted(path)}" if path else place


def dotted(path: Sequence[str | int]) -> str:
    """`modules[0].feature_map.kind`"""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else str(part))
    return out or "the document"

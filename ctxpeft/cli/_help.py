"""A command's help from its docstring: prose that wraps, examples that do not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from rich.markup import escape

WIDTH = 76
EXAMPLES = "\nExamples:\n"


def prose(function: Callable[..., Any]) -> str:
    """The docstring before its examples, a line a paragraph."""
    text = inspect.cleandoc(function.__doc__ or "").partition(EXAMPLES)[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def examples(function: Callable[..., Any]) -> list[str]:
    """The commands below `Examples:`, as they can be typed."""
    text = inspect.cleandoc(function.__doc__ or "").partition(EXAMPLES)[2]
    return [line.strip() for line in text.splitlines() if line.strip()]


def epilog(function: Callable[..., Any]) -> str | None:
    """The examples as typer prints them below the options; what is copied runs, however narrow the terminal is."""
    lines = [part for line in examples(function) for part in _folded(line)]
    return escape("\n".join(["Examples:", *lines])) if lines else None


def _folded(line: str) -> list[str]:
    """A long command on several lines, broken before its options as the shell allows."""
    lines = [""]
    for part in re.split(r" (?=-)", line):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH:
            lines[-1] += "\\"
            lines.append("    ")
        lines[-1] += f"{part} "
    return [each.rstrip() for each in lines]

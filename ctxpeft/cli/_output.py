"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ctxpeft import __version__
from ctxpeft.files import plain


def stdout() -> Console:
    """A console on standard output; plain and unwrapped when piped."""
    return _console(stderr=False)


def stderr() -> Console:
    """A console on standard error, for progress, notes and errors."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 160
    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=not stream.isatty(), width=width)


def emit(command: str, result: Mapping[str, Any]) -> None:
    """Print the one JSON object of `--json`: `{"command", "version", "result"}`.

    Numbers that JSON cannot hold (nan, inf) become null; paths become strings.
    """
    envelope = {"command": command, "version": __version__, "result": plain(result)}
    sys.stdout.write(json.dumps(envelope, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def emit_plan(command: str, plan: Mapping[str, Any], json: bool) -> None:
    """What `--dry-run` prints: that nothing happened, and what would; `{"plan": ...}` with `--json`."""
    if json:
        emit(command, {"plan": plan})
        return
    console = stdout()
    console.print("Nothing was run or written. The plan:", markup=False)
    print_facts(plan)


def print_facts(facts: Mapping[str, Any]) -> None:
    """A line for each fact: `steps 250, batch_size 16` for a mapping, `a, b` for a list, `none` for nothing."""
    for key, value in facts.items():
        stdout().print(f"  {key}: {_fact(value) or 'none'}", markup=False)


def _fact(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(f"({_fact(v)})" if isinstance(v, Mapping) else _fact(v) for v in value)
    if isinstance(value, str):
        return repr(value) if value != value.strip() or "\n" in value else value
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def metrics_text(metrics: Mapping[str, float], generated: int, count: int) -> str:
    """`accuracy 0.2118  exact_match 0.1875 (of 32)`: exact match is asked of `generated` of the `count` examples."""
    some = {"exact_match": f" (of {generated})"} if 0 < generated < count else {}
    return "  ".join(f"{key} {value:.4f}{some.get(key, '')}" for key, value in metrics.items())


def note(text: str) -> None:
    """One line of information on standard error."""
    stderr().print(f"note: {text}", markup=False)


def print_error(text: str) -> None:
    """The one sentence of an error, on standard error."""
    console = stderr()
    console.print("error:", style="bold red", end=" ")
    console.print(text, markup=False)


def print_help(
    commands: Mapping[str, tuple[str, str]], groups: Mapping[str, Sequence[str]], epilog: str
) -> None:
    """The commands by group, without importing any of them; those of no group come last."""
    console = stdout()
    console.print("ctxpeft: construct, compare and search context-based PEFT methods\n", style="bold")
    console.print("Usage: ctxpeft COMMAND [OPTIONS]     (ctxpeft COMMAND --help)\n", markup=False)
    grouped = [name for names in groups.values() for name in names]
    others = [name for name in commands if name not in grouped]
    table = Table.grid(padding=(0, 2))
    for title, names in [*groups.items(), *([("Other", others)] if others else [])]:
        table.add_row(title, style="bold")
        for name in names:
            table.add_row(f"  {name}", commands[name][1])
    console.print(table)
    console.print(f"\n{epilog}", markup=False)

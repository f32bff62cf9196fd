"""All commands as one group, for the shell: completion of commands, options and names."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ctxpeft.cli import COMMANDS, command_of


class _Commands(TyperGroup):
    """Each command is imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return command_of(cmd_name) if cmd_name in COMMANDS else None


app = typer.Typer(cls=_Commands, add_completion=True, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Construct, compare and search context-based PEFT methods."""


def run(args: list[str]) -> int:
    """Complete a line, or print or install the script that asks for it."""
    try:
        app(args=args, prog_name="ctxpeft")
    except SystemExit as done:
        return int(done.code or 0)
    return 0

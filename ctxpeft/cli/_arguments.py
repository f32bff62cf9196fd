"""Command-line conventions shared by the commands: options that take several values, and common options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ctxpeft.cli._complete import models, tasks, variants
from ctxpeft.errors import SpecError

_VARIADIC = ("--data", "--test")
_OVERRIDE = re.compile(r"^[A-Za-z_][\w.\-]*=")
_SPEC_SUFFIXES = (".yaml", ".yml")

# The groups of options in a command's help.
WHAT = "Options"
DATA = "Data"
RUN = "How it runs"
OUTPUT = "Output"


def expand_variadic(args: Sequence[str]) -> list[str]:
    """`--data A B key=value` as `--data A --data B key=value`.

    A value list ends at the next option, at `key=value` that is not an existing file, and at a YAML file
    (no data file is YAML, and `search` takes one as its argument).
    """
    expanded: list[str] = []
    current = ""
    taken = 0
    for arg in args:
        if arg.startswith("-"):
            current, taken = (arg, 0) if arg in _VARIADIC else ("", 0)
        elif current:
            ends = is_setting(arg) or arg.endswith(_SPEC_SUFFIXES)
            if ends and taken:
                current = ""
            else:
                if taken:
                    expanded.append(current)
                taken += 1
        expanded.append(arg)
    return expanded


def is_setting(argument: str) -> bool:
    """Whether it is `key=value` and no file."""
    return _OVERRIDE.match(argument) is not None and not Path(argument).exists()


def numbers(text: str, option: str) -> list[int]:
    """The whole numbers of `1,4,16`, rising. Raises SpecError on anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise SpecError(f"{option}: expected whole numbers above zero such as 1,4,16, found '{text}'")
    return sorted({int(part) for part in parts})


def model_option(help: str) -> Any:
    """`--model M`, with a help of the command's own."""
    return typer.Option("--model", "-m", help=help, metavar="M", rich_help_panel=WHAT, autocompletion=models)


ModelOption = Annotated[str, model_option("A hub id, a local directory, or 'ctxpeft-mini'.")]
VariantOption = Annotated[
    str,
    typer.Option(
        "--variant",
        "-v",
        help="A shipped variant's name or a YAML file.",
        metavar="V",
        rich_help_panel=WHAT,
        autocompletion=variants,
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        help="A shipped task, a task YAML file, or hub:<id>; its prompt on the files of --data.",
        metavar="T",
        rich_help_panel=DATA,
        autocompletion=tasks,
    ),
]
TasksOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "-t",
        help="A shipped task, a task YAML file, or hub:<id>; several are searched jointly.",
        metavar="T",
        rich_help_panel=DATA,
        autocompletion=tasks,
    ),
]


def data_option(files: str) -> Any:
    """`--data FILE...`, with the command's own word for the files."""
    help = f"{files} (CSV, TSV, JSON, JSONL), joined."
    return typer.Option("--data", help=help, metavar="FILE...", rich_help_panel=DATA)


def settings_argument(examples: str) -> Any:
    """`KEY=VALUE`, with examples that mean something to the command."""
    return typer.Argument(help=f"Settings: {examples} ...", metavar="KEY=VALUE")


DataOption = Annotated[list[str] | None, data_option("Training files")]
TestOption = Annotated[
    list[str] | None,
    typer.Option("--test", help="Test files, read only at the end.", metavar="FILE...", rich_help_panel=DATA),
]
OverridesArgument = Annotated[list[str] | None, settings_argument("steps=250 learning_rate=3e-3")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output.", rich_help_panel=OUTPUT)
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Check everything, print the plan, stop.", rich_help_panel=RUN),
]
FreshOption = Annotated[
    bool,
    typer.Option("--fresh", help="Discard what the output folder holds.", rich_help_panel=OUTPUT),
]

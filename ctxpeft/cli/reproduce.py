"""`ctxpeft reproduce`: a finished run once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxpeft.cli import _output
from ctxpeft.cli._arguments import OUTPUT, WHAT, DryRunOption, JsonOption
from ctxpeft.cli._complete import models


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Where the model is now.",
            metavar="M",
            rich_help_panel=WHAT,
            autocompletion=models,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Keep the second run here.", metavar="DIR", rich_help_panel=OUTPUT),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> int:
    """Run again what a folder holds: identical on the same machine, within the spread of its seeds on another.

    Exit code 1 where it is neither.

    Examples:
      ctxpeft reproduce runs/first --dry-run
      ctxpeft reproduce runs/first
      ctxpeft reproduce runs/first --model ./model --out runs/again --json
    """
    from ctxpeft.training import ConsoleReporter, check_reproducible, reproduce

    if dry_run:
        _output.emit_plan("reproduce", check_reproducible(run, model), json)
        return 0
    found = reproduce(run, out, model=model, reporter=ConsoleReporter())
    if json:
        payload = {
            "run": found.folder,
            "verdict": found.verdict,
            "metrics": {k: {"there": a, "here": b} for k, (a, b) in found.metrics.items()},
            "differences": found.differences,
            "spread": found.spread,
        }
        _output.emit("reproduce", payload)
    else:
        console = _output.stdout()
        for name, (there, here) in found.metrics.items():
            sd = found.spread.get(name)
            spread = "" if sd is None else f", standard deviation of its seeds {sd:.6f}"
            console.print(f"{name}: {there:.6f} there, {here:.6f} here{spread}", markup=False)
        told = f" (not equal: {', '.join(found.differences)})" if found.differences else ""
        console.print(f"{found.verdict}{told}", markup=False)
    return 1 if found.verdict == "different" else 0

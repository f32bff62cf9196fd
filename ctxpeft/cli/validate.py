"""`ctxpeft validate FILE...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ctxpeft.cli._arguments import JsonOption
from ctxpeft.cli._output import emit, print_error, stdout
from ctxpeft.errors import CtxpeftError


def command(
    files: Annotated[list[Path], typer.Argument(help="Variant, space or task files.", metavar="FILE...")],
    json: JsonOption = False,
) -> int:
    """Check files against the algebra: `ok` with the fingerprint, or one sentence on what is wrong.

    Under a valid variant stands what the construction guide advises, if anything. Exits 2 if any file is not valid.

    Examples:
      ctxpeft validate mine.yaml
      ctxpeft validate variants/*.yaml search/*.yaml --json
    """
    results = [_check(path) for path in files]
    if json:
        emit("validate", {"files": results})
    for result in results:
        if result["error"] is not None:
            print_error(result["error"])
        elif not json:
            mark = result["fingerprint"] or ""
            stdout().print(
                f"{result['file']}: ok  {result['kind']}  {mark}".rstrip(), markup=False, emoji=False
            )
            for advice in result["advice"]:
                stdout().print(f"  {advice['sentence']}", markup=False, emoji=False)
    return 2 if any(result["error"] is not None for result in results) else 0


def _check(path: Path) -> dict[str, Any]:
    from ctxpeft.cli._documents import read_spec

    result: dict[str, Any] = {
        "file": str(path),
        "kind": None,
        "fingerprint": None,
        "advice": [],
        "error": None,
    }
    try:
        found = read_spec(path)
    except CtxpeftError as error:
        return {**result, "error": str(error)}
    advised = [
        {
            "rule": a.rule.id,
            "severity": a.rule.severity,
            "key": f"modules[{a.module}].{a.rule.key}",
            "sentence": a.sentence(),
            "source": a.rule.source,
        }
        for a in found.advice
    ]
    return {**result, "kind": found.kind, "fingerprint": found.fingerprint, "advice": advised}

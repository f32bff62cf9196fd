"""`ctxpeft cp NAME FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxpeft.cli._arguments import JsonOption
from ctxpeft.cli._output import emit, note
from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.files import write_text
from ctxpeft.shipped import shipped_file, shipped_names

KINDS = ("variants", "search")


def command(
    name: Annotated[str, typer.Argument(help="A shipped variant or search space.", metavar="NAME")],
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", metavar="FILE")],
    json: JsonOption = False,
) -> None:
    """Copy a shipped variant or search space into a file of your own, to change it."""
    source = _shipped(name)
    target = file / source.name if file.is_dir() else file
    if target.exists() or target.is_symlink():
        raise SpecError(f"{target}: exists already; cp does not overwrite, so name another file or remove it")
    write_text(target, source.read_text(encoding="utf-8"))
    if json:
        emit("cp", {"name": name, "file": target})
    else:
        note(f"{name} copied to {target}")


def _shipped(name: str) -> Path:
    for kind in KINDS:
        found = shipped_file(kind, name)
        if found is not None:
            return found
    names = [n for kind in KINDS for n in shipped_names(kind)]
    raise SpecError(f"nothing that ships is called '{name}'{did_you_mean(name, names)}")

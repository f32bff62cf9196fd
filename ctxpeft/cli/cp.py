"""`ctxpeft cp NAME FILE`."""

from __future__ import annotations

import json as json_text
import re
from pathlib import Path
from typing import Annotated

import typer

from ctxpeft.cli._arguments import OUTPUT, JsonOption
from ctxpeft.cli._complete import shipped
from ctxpeft.cli._output import emit, note
from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.files import write_text
from ctxpeft.shipped import shipped_file, shipped_names

KINDS = {"variants": "variant", "search": "space"}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,79}")
SERVER = "# yaml-language-server: "


def command(
    name: Annotated[
        str,
        typer.Argument(help="A shipped variant or search space.", metavar="NAME", autocompletion=shipped),
    ],
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", metavar="FILE")],
    schema: Annotated[
        bool,
        typer.Option(
            "--schema/--no-schema",
            help="Write the schema that editors complete the file by beside it.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Copy a shipped variant or search space into a file of your own, to change it.

    A copied variant is named after its file. Its first line names a schema beside it, so that editors with a YAML
    language server complete keys and kinds.

    Examples:
      ctxpeft cp prefix-tuning-plus mine.yaml
      ctxpeft cp equation my-space.yaml --no-schema
    """
    source, kind = _shipped(name)
    target = file / source.name if file.is_dir() else file
    if target.exists() or target.is_symlink():
        raise SpecError(f"{target}: exists already; cp does not overwrite, so name another file or remove it")
    beside = target.parent / f"{kind}.schema.json"
    if schema and _may_write(beside):
        write_text(beside, _schema(kind))
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines[0].startswith(SERVER):
        lines[0] = f"{SERVER}$schema={beside.name}\n" if schema else ""
    write_text(target, _named("".join(lines), target) if kind == "variant" else "".join(lines))
    if json:
        emit("cp", {"name": name, "file": target, "schema": beside if schema else None})
    else:
        note(f"{name} copied to {target}" + (f"; editors complete it by {beside}" if schema else ""))


def _named(text: str, target: Path) -> str:
    """The variant under the file's name, where that can be one: tables tell the copy from its source."""
    name = target.stem.lower()
    return re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1) if _NAME.fullmatch(name) else text


def _shipped(name: str) -> tuple[Path, str]:
    for folder, kind in KINDS.items():
        found = shipped_file(folder, name)
        if found is not None:
            return found, kind
    names = [n for folder in KINDS for n in shipped_names(folder)]
    raise SpecError(f"nothing that ships is called '{name}'{did_you_mean(name, names, 'ctxpeft ls')}")


def _may_write(path: Path) -> bool:
    """Whether nothing is there, or a schema that ctxpeft wrote."""
    try:
        return not path.exists() or "ctxpeft" in json_text.loads(path.read_text(encoding="utf-8"))["$comment"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _schema(kind: str) -> str:
    """The schema with every installed kind: the file that ships, which is there at once, if no package adds to it."""
    from importlib.metadata import entry_points

    from ctxpeft.shipped import shipped_folder

    ready = shipped_folder("docs/schema") / f"{kind}.json"
    owners = {entry.dist.name for entry in entry_points(group="ctxpeft.blocks") if entry.dist is not None}
    if ready.is_file() and owners == {"ctxpeft"}:
        return ready.read_text(encoding="utf-8")
    from ctxpeft.cli._schemas import schema_text

    return schema_text(kind)

"""`ctxpeft report STUDY_DIR | --storage URL --study NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxpeft.cli._arguments import JsonOption
from ctxpeft.cli._output import emit
from ctxpeft.errors import CtxpeftError
from ctxpeft.extras import require


def command(
    folder: Annotated[
        Path | None, typer.Argument(help="The folder of a search.", metavar="STUDY_DIR", show_default=False)
    ] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Database URL.", metavar="URL")] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="The study's name, if there are several.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write into; STUDY_DIR.", metavar="DIR")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write report.html, best.yaml, trials.csv and study.json of a search, finished or still running.

    Examples:

    \b
      ctxpeft report runs/search-quickstart
      ctxpeft report --storage postgresql://user@host/db --study trec --out runs/trec
    """
    from ctxpeft.search.run import stored, write_found

    require("matplotlib", "plots", "the report of a search")
    if (folder is None) == (storage is None):
        raise CtxpeftError("expected the folder of a search, or --storage URL")
    target = out or folder
    if target is None:
        raise CtxpeftError("with --storage, say where to write: --out DIR")
    found = stored(storage or _own(folder), study, target)
    write_found(found)
    if json:
        emit("report", found.plain())
        return
    from ctxpeft.cli._search_table import print_found

    print_found(found)


def _own(folder: Path | None) -> str:
    """The URL of a folder's own study."""
    assert folder is not None
    if not (folder / "study.db").is_file():
        raise CtxpeftError(f"{folder} holds no study.db: expected the folder of a search, or --storage URL")
    return f"sqlite:///{(folder / 'study.db').as_posix()}"

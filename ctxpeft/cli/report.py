"""`ctxpeft report STUDY_DIR... | --storage URL --study NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxpeft.cli._arguments import OUTPUT, WHAT, JsonOption
from ctxpeft.cli._output import emit
from ctxpeft.errors import CtxpeftError
from ctxpeft.extras import require


def command(
    studies: Annotated[
        list[Path] | None,
        typer.Argument(
            help="The folder of a search, or its study.json; several are compared.",
            metavar="STUDY_DIR...",
            show_default=False,
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Database URL.", metavar="URL", rich_help_panel=WHAT)
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            help="The study's name, if there are several.",
            metavar="NAME",
            rich_help_panel=WHAT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder to write into; STUDY_DIR.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(
            "--target", help="With several studies: the objective to reach; the anchors' own.", metavar="X"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write report.html, best.yaml, trials.csv and study.json of a search, finished or still running.

    With several studies of one model and task, print how many designs each had to train to reach what the anchors
    reached, and each --target: what a sampler, the guide or a space is worth.

    Examples:
      ctxpeft report runs/search-quickstart
      ctxpeft report docs/evidence/joint/study.json --out runs/joint
      ctxpeft report runs/tpe runs/random runs/no-guide --target 0.30
      ctxpeft report --storage postgresql://user@host/db --study trec --out runs/trec
    """
    if studies and len(studies) > 1:
        _compare(studies, storage, target, json)
        return
    from ctxpeft.search.located import archive_at
    from ctxpeft.search.run import Found, stored, write_found

    for package in ("matplotlib", "latex2mathml"):
        require(package, "plots", "the report of a search")
    path = studies[0] if studies else None
    if (path is None) == (storage is None):
        raise CtxpeftError("expected the folder of a search, or --storage URL")
    if path is not None:
        found = Found(archive_at(path, study), out or (path if path.is_dir() else path.parent))
    elif out is None:
        raise CtxpeftError("with --storage, say where to write: --out DIR")
    else:
        found = stored(str(storage), study, out)
    write_found(found)
    if json:
        emit("report", found.plain())
        return
    from ctxpeft.cli._search_table import print_found

    print_found(found)


def _compare(studies: list[Path], storage: str | None, targets: list[float] | None, json: bool) -> None:
    from ctxpeft.search.efficiency import compare_studies
    from ctxpeft.search.located import archive_at

    if storage is not None:
        raise CtxpeftError("several studies are compared by their folders or study.json; leave --storage out")
    names = [path.name if path.is_dir() else path.parent.name for path in studies]
    unique = [
        name if names.count(name) == 1 else str(path) for name, path in zip(names, studies, strict=True)
    ]
    archives = [(name, archive_at(path)) for name, path in zip(unique, studies, strict=True)]
    result = compare_studies(archives, targets)
    if json:
        emit("report", result.plain())
        return
    from ctxpeft.cli._search_table import print_efficiency

    print_efficiency(result)

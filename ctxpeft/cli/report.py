"""`ctxpeft report STUDY_DIR... | --storage URL --study NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxpeft.cli._arguments import OUTPUT, WHAT, JsonOption
from ctxpeft.cli._output import emit
from ctxpeft.errors import CtxpeftError
from ctxpeft.extras import require

if TYPE_CHECKING:
    from ctxpeft.search.archive import Archive


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
    from ctxpeft.search.run import Found, stored, write_found

    for package in ("matplotlib", "latex2mathml"):
        require(package, "plots", "the report of a search")
    path = studies[0] if studies else None
    if (path is None) == (storage is None):
        raise CtxpeftError("expected the folder of a search, or --storage URL")
    if path is not None:
        found = Found(_archive(path, study), out or (path if path.is_dir() else path.parent))
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

    if storage is not None:
        raise CtxpeftError("several studies are compared by their folders or study.json; leave --storage out")
    names = [path.name if path.is_dir() else path.parent.name for path in studies]
    unique = [
        name if names.count(name) == 1 else str(path) for name, path in zip(names, studies, strict=True)
    ]
    archives = [(name, _archive(path)) for name, path in zip(unique, studies, strict=True)]
    result = compare_studies(archives, targets)
    if json:
        emit("report", result.plain())
        return
    from ctxpeft.cli._search_table import print_efficiency

    print_efficiency(result)


def _archive(path: Path, study: str | None = None) -> Archive:
    """A study from its folder's database, or from its file."""
    from ctxpeft.search.archive import archive_of, read_archive
    from ctxpeft.search.storage import load_study

    if path.is_file():
        return read_archive(path)
    if not path.exists():
        what = f"the file {path} does not exist" if path.suffix else f"no folder {path}"
        raise CtxpeftError(f"{what}: expected the folder of a search, its study.json, or --storage URL")
    if not (path / "study.db").is_file():
        if (path / "study.json").is_file():
            return read_archive(path / "study.json")
        elsewhere = (path / "search.json").is_file()
        why = "; its study is in another storage, give --storage URL --study NAME" if elsewhere else ""
        raise CtxpeftError(
            f"{path} holds no study.db{why or ': expected the folder of a search, or --storage URL'}"
        )
    return archive_of(load_study(f"sqlite:///{(path / 'study.db').as_posix()}", study))

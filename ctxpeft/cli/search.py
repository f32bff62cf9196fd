"""`ctxpeft search SPACE [--model M] [--task T | --data FILE... --test FILE]`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli._arguments import (
    OUTPUT,
    RUN,
    DataOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    TasksOption,
    TestOption,
    model_option,
    settings_argument,
)
from ctxpeft.cli._complete import spaces
from ctxpeft.cli._output import emit
from ctxpeft.errors import SpecError
from ctxpeft.extras import require
from ctxpeft.files import expanded
from ctxpeft.shipped import space_path

if TYPE_CHECKING:
    from ctxpeft.search.archive import Archive
    from ctxpeft.search.job import Job
    from ctxpeft.search.spacefile import Space


def command(
    space: Annotated[
        str,
        typer.Argument(help="A shipped space's name or a YAML file.", metavar="SPACE", autocompletion=spaces),
    ],
    overrides: Annotated[
        list[str] | None, settings_argument("steps=250 search.keep=0.4 rates.widen=0")
    ] = None,
    model: Annotated[
        str | None, model_option("A hub id or a local directory; the space's own if it names one.")
    ] = None,
    task: TasksOption = None,
    data: DataOption = None,
    test: TestOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the study; runs/search-<space>.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=0,
            help="Designs to train beyond the anchors, in all.",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="Processes on this machine.", metavar="N", rich_help_panel=RUN),
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Database URL; SQLite in the folder if left out.",
            metavar="URL",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            help="The study's name in the storage; the space's name.",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    begin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Begin with the trials of a study.json, or of another search's folder, in an empty folder.",
            metavar="FILE",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    json: JsonOption = False,
) -> None:
    """Search a space of variants: rates tuned inside each trial, anchors first, resumed by default.

    The same command goes on where it was stopped. --trials counts designs trained beyond the anchors; designs that
    are infeasible or were seen before cost nothing and are not counted. With several --task a design is trained on
    each, and the objective is the mean over tasks of the loss relative to the frozen model. A study.json holds the
    whole study: --from continues it elsewhere.

    Examples:
      ctxpeft search quickstart
      ctxpeft search quickstart --dry-run
      ctxpeft search equation --model ./model --data train.csv --test test.csv --out runs/equation
      ctxpeft search space.yaml --model ./model --task docstring-area --trials 60 search.keep=0.4
      ctxpeft search full-equation --model ./model --task trec.yaml --task sst2.yaml --out runs/both
      ctxpeft search full-equation --model ./model --task trec.yaml --from study.json --trials 80 --out runs/more
      ctxpeft search space.yaml -m ./model -t trec.yaml --workers 2 --storage postgresql://user@host/db --study trec
    """
    space_path(space)  # a wrong name is refused before torch is imported, and so is a setting that is none
    settings = _settings(overrides or [], trials)
    from ctxpeft.search.spacefile import load_space

    found = _changed(load_space(space), settings)
    from ctxpeft.search.archive import reread
    from ctxpeft.search.job import Job, model_of, tasks_of
    from ctxpeft.search.located import archive_at

    folder = out or Path("runs") / f"search-{found.name}"
    archive = reread(archive_at(begin)) if begin else None
    if dry_run:
        from ctxpeft.search.reach import check_begin

        check_begin(archive, found.file, storage)
    if dry_run and not (task or data or test or found.file.tasks):
        _dry_run(found, model_of(found, model), None, workers, None, json)
        return
    specs = tasks_of(found, task or [], data or [], test or [])
    job = Job(found, model_of(found, model), specs, folder, study or found.name, storage)
    if dry_run:
        _dry_run(found, job.model, job, workers, archive, json)
        return
    for package in ("matplotlib", "latex2mathml"):
        require(package, "plots", "the report of a search")
    from ctxpeft.search.run import search

    result = search(job, _command(sys.argv), workers, fresh, archive)
    if json:
        emit("search", result.plain())
        return
    from ctxpeft.cli._search_table import print_found

    print_found(result)


def _settings(overrides: list[str], trials: int | None) -> dict[str, dict[str, Any]]:
    """`key=value` settings and `--trials` by the section they belong to. Raises SpecError for a key of none."""
    from ctxpeft.cli._overrides import parse_overrides, place_overrides
    from ctxpeft.search.rates import Rates
    from ctxpeft.search.settings import Budget, Search

    pairs = parse_overrides(overrides)
    sections: dict[str, list[str]] = {
        "search": list(Search.model_fields),
        "budget": list(Budget.model_fields),
        "rates": list(Rates.model_fields),
    }
    if pairs:
        from ctxpeft.tasks import TaskSpec
        from ctxpeft.training import TrainingConfig

        sections |= {"training": list(TrainingConfig.model_fields), "data": list(TaskSpec.model_fields)}
    placed = place_overrides(pairs, sections)
    if trials is not None:
        placed.setdefault("search", {})["trials"] = trials
    return placed


def _changed(space: Space, settings: dict[str, dict[str, Any]]) -> Space:
    """The space with settings. Raises SpecError for a value that cannot be, and where a text is not there."""
    from ctxpeft.search.job import with_settings

    changed = with_settings(space, settings)
    text = changed.file.search.forgetting
    if text is not None and not (named := expanded(text)).is_file():
        why = "names an environment variable that is not set" if "$" in str(named) else "does not exist"
        raise SpecError(f"search.forgetting: the file {text} {why}; expected a text file")
    return changed


def _dry_run(
    space: Space, model: str, job: Job | None, workers: int, begin: Archive | None, json: bool
) -> None:
    """The space on the meta device; where the data are known, a few steps timed on the model besides.

    Raises SpecError, after all is shown, where every design was refused.
    """
    from ctxpeft.cli._model import empty_model
    from ctxpeft.search.dryrun import lines_of, preview
    from ctxpeft.search.expected import measure

    time, facts = measure(job, workers, begin) if job is not None else (None, None)
    result = replace(preview(space, empty_model(model), facts=facts), expected=time)
    if json:
        emit("search", result.plain())
    else:
        print("\n".join(lines_of(result)))
    if result.impossible:
        raise SpecError(result.impossible)


def _command(argv: list[str]) -> list[str]:
    """The command as it can be typed again."""
    return ["ctxpeft", *argv[1:]]

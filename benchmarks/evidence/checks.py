"""What can be wrong with a table and needs no model: asked of every table before the first one runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from benchmarks.evidence.tables import Table
from ctxpeft.errors import DataError, SpecError, did_you_mean
from ctxpeft.spec.document import Document
from ctxpeft.spec.explain import spec_error
from ctxpeft.tasks import load_task, on_files, with_settings
from ctxpeft.training import TrainingConfig, load_method


def check(table: Table, data_root: Path) -> None:
    """Its methods, task, settings and files.

    Raises:
        SpecError: a name, key or value that is none.
        DataError: a file is not under the data root.
    """
    load_method(table.budget)
    for size in table.sizes:
        names = [entry.method().name for entry in table.entries(size)]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise SpecError(
                f"the table {table.name} has two methods named '{min(twice)}'; `name` renames one"
            )
    known = [entry.method().name for entry in table.entries("default")]
    if table.against and table.against not in known:
        raise SpecError(
            f"the table {table.name} compares against '{table.against}', which it does not run"
            f"{did_you_mean(table.against, known)}"
        )
    files = [[file(data_root, name) for name in names] for names in (table.train, table.test)]
    with_settings(on_files(load_task(table.task), *files), table.settings)
    training_config(table)
    for name in (*table.unrelated, *table.stories, *([table.behind.text] if table.behind else [])):
        file(data_root, name)


def training_config(table: Table) -> TrainingConfig:
    """How its runs are trained. Raises SpecError."""
    data = {**table.training, "steps": table.steps}
    try:
        return TrainingConfig.model_validate(data)
    except ValidationError as error:
        document = Document(data, {}, f"the table {table.name}: training")
        raise spec_error(error, document, TrainingConfig) from None


def file(data_root: Path, name: str) -> str:
    """A file of the plan, under the data root. Raises DataError."""
    path = data_root / name
    if not path.is_file():
        raise DataError(f"{path} does not exist: --data-root names the folder that holds {name}")
    return str(path)

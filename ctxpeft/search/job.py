"""A search as one value: the space with what the command line changed, the model, the data, where it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ctxpeft.errors import SpecError, gathered
from ctxpeft.search.sections import checks, nested
from ctxpeft.search.settings import Search
from ctxpeft.search.spacefile import Space, SpaceFile
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.yaml_lines import Document

if TYPE_CHECKING:
    from ctxpeft.search.bench import Laboratory
    from ctxpeft.tasks import TaskSpec


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to take part; plain enough to be sent to another process.

    tasks: one or several, which are then one objective (see `joint`). storage: an SQLAlchemy URL; the study's own
    SQLite file in `out` when it is None.
    """

    space: Space
    model: str
    tasks: tuple[TaskSpec, ...]
    out: Path
    study: str
    storage: str | None = None
    threads: int | None = None

    @property
    def url(self) -> str:
        """Where the study is."""
        return self.storage or f"sqlite:///{(self.out / 'study.db').as_posix()}"

    @property
    def search(self) -> Search:
        """How the search goes."""
        return self.space.file.search

    def open(self) -> Laboratory:
        """Load the model and the data."""
        from ctxpeft.search.bench import Laboratory

        return Laboratory(self)


def with_settings(space: Space, settings: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space with keys of its sections `search`, `budget`, `rates`, `training` and `data` replaced.

    Raises SpecError on a value the section does not take.
    """
    data = space.file.model_dump()
    for section, values in settings.items():
        if values:
            own = data[section] or {}
            data[section] = {**own, **values} if section == "data" else nested(values, own)
    document = Document(data, {}, "the command line")
    try:
        file = SpaceFile.model_validate(data)
    except ValidationError as error:
        raise spec_error(error, document, SpaceFile) from None
    if settings.get("training") or settings.get("data"):
        gathered(checks(document))
    return replace(space, file=file)


def tasks_of(
    space: Space, tasks: Sequence[str], data: Sequence[str], test: Sequence[str]
) -> tuple[TaskSpec, ...]:
    """The tasks from the command line, else from the space file, each with the file's `data` settings.

    Raises SpecError where there is none, or where two are called the same.
    """
    from ctxpeft.tasks import load_task, task_from_files
    from ctxpeft.tasks import with_settings as task_with

    if test and not data:
        raise SpecError("--test belongs to --data; a task names its own test data (or set data.test=FILE)")
    if tasks and data:
        raise SpecError("--task and --data exclude each other")
    if data:
        specs = [task_from_files(data, test)]
    elif tasks:
        specs = [load_task(task) for task in tasks]
    elif space.file.tasks:
        specs = [load_task(_beside(space, task)) for task in space.file.tasks]
    else:
        raise SpecError(
            f"{space.name} names no task: give --task T or --data FILE... [--test FILE]; several --task are joined"
        )
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"two tasks are called '{twice}': give one another name in its file (name: ...)")
    return tuple(task_with(spec, space.file.data) if space.file.data else spec for spec in specs)


def _beside(space: Space, task: str) -> str:
    """A task file that a space names stands beside the space."""
    file = space.folder / task
    return str(file) if task.endswith((".yaml", ".yml")) and file.is_file() else task


def model_of(space: Space, model: str | None) -> str:
    """The model from the command line, else from the space file."""
    found = model or space.file.model
    if found is None:
        raise SpecError(f"{space.name} names no model: give --model M")
    return found

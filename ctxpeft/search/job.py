"""A search as one value: the space with what the command line changed, the model, the data, where it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ctxpeft.errors import SpecError
from ctxpeft.search.spacefile import Search, Space, SpaceFile
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.yaml_lines import Document

if TYPE_CHECKING:
    from ctxpeft.search.bench import Laboratory
    from ctxpeft.tasks import TaskSpec


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to take part; plain enough to be sent to another process.

    storage: an SQLAlchemy URL; the study's own SQLite file in `out` when it is None.
    """

    space: Space
    model: str
    task: TaskSpec
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
    """The space with keys of its sections `search`, `training` and `data` replaced.

    Raises SpecError on a value the section does not take.
    """
    data = space.file.model_dump()
    for section, values in settings.items():
        data[section] = {**data[section], **values}
    try:
        file = SpaceFile.model_validate(data)
    except ValidationError as error:
        raise spec_error(error, Document(data, {}, "the command line"), SpaceFile) from None
    return replace(space, file=file)


def task_of(space: Space, task: str | None, data: Sequence[str], test: Sequence[str]) -> TaskSpec:
    """The task from the command line, else from the space file, with the file's `data` settings."""
    from ctxpeft.tasks import load_task, task_from_files
    from ctxpeft.tasks import with_settings as task_with

    if task and data:
        raise SpecError("--task and --data exclude each other")
    if data:
        spec = task_from_files(data, test)
    elif task or space.file.task:
        spec = load_task(task or str(space.file.task))
    else:
        raise SpecError(f"{space.name} names no task: give --task T or --data FILE... [--test FILE]")
    return task_with(spec, space.file.data) if space.file.data else spec


def model_of(space: Space, model: str | None) -> str:
    """The model from the command line, else from the space file."""
    found = model or space.file.model
    if found is None:
        raise SpecError(f"{space.name} names no model: give --model M")
    return found

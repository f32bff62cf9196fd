"""A study from where it lies: the folder of a search, or a file."""

from __future__ import annotations

from pathlib import Path

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.archive import Archive, archive_of, read_archive
from ctxpeft.search.storage import load_study


def archive_at(path: Path, study: str | None = None) -> Archive:
    """A study from the database of its folder, else from the folder's file, or from a file.

    Raises CtxpeftError where there is none, or several and `study` names none of them.
    """
    if path.is_file():
        return read_archive(path)
    if not path.exists():
        what = f"the file {path} does not exist" if path.suffix else f"no folder {path}"
        raise CtxpeftError(f"{what}: expected the folder of a search, or its study.json")
    if not (path / "study.db").is_file():
        if (path / "study.json").is_file():
            return read_archive(path / "study.json")
        elsewhere = (path / "search.json").is_file()
        why = "; its study is in another storage, give --storage URL --study NAME" if elsewhere else ""
        raise CtxpeftError(
            f"{path} holds no study.db{why or ': expected the folder of a search, or --storage URL'}"
        )
    return archive_of(load_study(f"sqlite:///{(path / 'study.db').as_posix()}", study))

"""Whether a search could begin from a file and in a storage: asked in a dry run, which leaves nothing there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctxpeft.errors import CtxpeftError
from ctxpeft.extras import require
from ctxpeft.search.archive import Archive
from ctxpeft.search.described import asked
from ctxpeft.search.spacefile import SpaceFile
from ctxpeft.search.storage import check_archive, only_continued, without_password

WAIT_S = 10


def check_begin(archive: Archive | None, file: SpaceFile, url: str | None) -> None:
    """Raises CtxpeftError where no study of the space can begin from the archive, whatever its model and data are, or
    be in the storage."""
    if archive is not None:
        only_continued(archive)
        mine = asked(file)
        theirs = {key: archive.described.get(key) for key in mine}
        check_archive(replace(archive, described=theirs), mine, len(file.search.objectives))
    if url is not None:
        _check_storage(url)


def _check_storage(url: str) -> None:
    """Connect to a server; of an SQLite file see that its folder is there, and that a file of its name is a database.

    Raises CtxpeftError, without the password of the URL, where it cannot be opened.
    """
    from sqlalchemy import create_engine, inspect, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    if url.startswith("postgresql:"):
        require("psycopg2", "postgres", "a study on PostgreSQL")
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and not _is_there(parsed.database):
            return
        waits = {"connect_timeout": WAIT_S} if parsed.get_backend_name() == "postgresql" else {}
        engine = create_engine(parsed, connect_args=waits, poolclass=NullPool)
        inspect(engine).get_table_names()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CtxpeftError(f"storage {without_password(url)} cannot be opened: {reason}") from None


def _is_there(database: str | None) -> bool:
    """Whether an SQLite file is there to be looked into. Raises ValueError where none could be made."""
    if database in (None, "", ":memory:"):
        return False
    path = Path(str(database))
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}")
    return path.is_file()

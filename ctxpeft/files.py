"""Atomic writes: a reader sees the old file or the new one, never half of one; what JSON can hold; $NAME in paths."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

STALE_SECONDS = 60.0
_DATABASE = re.compile("disk is full|disk I/O error|readonly database")
_DISK = (
    "ENOSPC",
    "EDQUOT",
    "EFBIG",
    "EROFS",
    "EIO",
    "EACCES",
    "EPERM",
    "ENAMETOOLONG",
    "ELOOP",
    "EMFILE",
    "ENFILE",
    "ETXTBSY",
)
DISK_ERRNOS = frozenset(getattr(errno, name) for name in _DISK if hasattr(errno, name))
"""What a disk, a quota or a permission says no with."""


def expanded(file: str) -> Path:
    """A path with ~ and $NAME filled in; a variable that is not set stays as it is."""
    return Path(os.path.expandvars(file)).expanduser()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    What a killed process left of an earlier write to the same path is removed. Raises OSError, with `path` as its
    `filename`, where it cannot be written; the old file is then still there.
    """
    with replacing_together(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def replacing_together(*paths: Path, just_before: Callable[[], None] | None = None) -> Iterator[list[Path]]:
    """`replacing` for several files: all are on disk before the first takes its place, one right after the other.

    `just_before` is called in between. A process that is killed after that may leave some replaced and others not.
    """
    temporaries: list[Path] = []
    current = paths[0]
    try:
        with contextlib.ExitStack() as locks:
            for current in paths:
                current.parent.mkdir(parents=True, exist_ok=True)
                _sweep(current)
                handle, name = tempfile.mkstemp(dir=current.parent, prefix=f".{current.name}.", suffix=".tmp")
                temporaries.append(Path(name))
                lock = locks.enter_context(os.fdopen(handle, "rb"))
                _locked(lock.fileno())
            yield temporaries
        umask = os.umask(0)
        os.umask(umask)
        for current, temporary in zip(paths, temporaries, strict=True):  # noqa: B007 - told in an error
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~umask)
        if just_before is not None:
            just_before()
        for current, temporary in zip(paths, temporaries, strict=True):
            temporary.replace(current)
    except OSError as error:
        error.filename, error.filename2 = os.fspath(current), None
        raise
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, making the folder if it is missing. Raises OSError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `plain(value)` as indented JSON, atomically."""
    write_text(path, json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def plain(value: Any) -> Any:
    """`value` with only the types JSON knows: paths as text, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if callable(item := getattr(value, "item", None)):  # numpy and torch scalars
        return plain(item())
    return str(value)


def disk_refusal(error: BaseException | None) -> str | None:
    """What the disk said no with, where that is what an error comes from, whichever library it came through."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
            return (error.strerror or "I/O error").lower()
        found = _DATABASE.search(str(error))
        if found and "sqlite3" in str(error):
            return found[0]
        error = error.__cause__ or error.__context__
    return None


def _sweep(path: Path) -> None:
    """Remove temporary files of this path that no process holds any more."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                with left.open("rb") as file:
                    if _locked(file.fileno()):
                        left.unlink()


def _locked(descriptor: int) -> bool:
    """Whether an open file could be locked for this process; never on platforms without advisory locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

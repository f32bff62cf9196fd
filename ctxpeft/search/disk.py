"""A full disk: told apart from a design's own failure, since every next design would fail as well."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from ctxpeft.errors import CtxpeftError

SPACES = (errno.ENOSPC, errno.EDQUOT)
WORDS = ("no space left on device", "database or disk is full", "disk quota exceeded")
CUT_SHORT = "pytorchstreamwriter failed"  # what torch says of any file it cannot write to the end
LITTLE = 1 << 20


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether an error, or what caused it, says that there is no room in `folder` or the study's database."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, OSError) and seen.errno in SPACES:
            return True
        if any(words in text for words in WORDS):
            return True
        if CUT_SHORT in text and shutil.disk_usage(folder).free < LITTLE:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextlib.contextmanager
def room_needed(folder: Path) -> Iterator[None]:
    """Inside the block a full disk is one sentence.

    Raises CtxpeftError; what was finished before is kept, and the trial that ran counts as interrupted.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error, folder):
            raise
        raise CtxpeftError(
            f"no space is left for {folder} or the study's database; what was finished is kept: make room, and the "
            "same command goes on"
        ) from None

"""A checkpoint that cannot be written, told in one sentence whichever library was writing."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from ctxpeft.errors import DiskError
from ctxpeft.files import DISK_ERRNOS

_TORCH_CANNOT_WRITE = re.compile("inline_container|PytorchStreamWriter")


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Raises DiskError where the operating system, safetensors or torch cannot write in the block."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _TORCH_CANNOT_WRITE.search(str(error)):
            raise
        if isinstance(error, OSError) and error.errno not in DISK_ERRNOS:
            raise
        raise DiskError(
            f"{folder}: a checkpoint cannot be written ({_reason(error, folder)}); earlier ones are kept, and the same "
            "command continues from them"
        ) from None


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    told = re.search(r"I/O error: (.*) \(os error", str(error))
    if told:
        return told[1].lower()
    with contextlib.suppress(OSError):
        if os.statvfs(folder).f_bavail == 0:
            return "no space left on device"
    return str(error).splitlines()[0]

"""Memory that a call has freed stays with the process: what glibc gives back is mapped page by page again, and whom
that meets in a round is chance."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed() -> bool:
    """Whether the C library could be told so; glibc can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, NEVER) and mallopt(MMAP_MAX, 0))

"""A storage in a file whose operations are done or not begun when Ctrl-C comes."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from optuna.storages import RDBStorage

from ctxpeft.search.patience import OPERATIONS, quiet


class SteadyStorage(RDBStorage):  # type: ignore[misc]
    """RDBStorage that an interrupt does not stop in the middle: it is raised behind the operation, which is short."""


@contextlib.contextmanager
def whole() -> Iterator[None]:
    """The first Ctrl-C inside the block is raised on leaving it, the second at once; in the main thread, where Python's
    own handler stands."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []

    def later(signum: int, frame: Any) -> None:
        came.append(signum)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def _steady(operation: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def done(self: SteadyStorage, *args: Any, **kwargs: Any) -> Any:
        with whole():
            return operation(self, *args, **kwargs)

    return done


for _name in OPERATIONS:
    setattr(SteadyStorage, _name, _steady(getattr(RDBStorage, _name)))
SteadyStorage.record_heartbeat = quiet(SteadyStorage.record_heartbeat)

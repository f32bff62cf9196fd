"""Ctrl-C amid a search: operations of a storage in a file are done or not begun, and no interrupt is lost."""

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


_heard: list[int] = []


def _remember(signum: int, frame: Any) -> None:
    _heard.append(signum)
    raise KeyboardInterrupt


@contextlib.contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Python drops an exception amid a destructor or a callback of its garbage collector, and a Ctrl-C with it. Inside
    the block calling what is yielded raises one that was dropped; in the main thread, where Python's own handler
    stands."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return

    def obey() -> None:
        if _heard:
            raise KeyboardInterrupt

    _heard.clear()
    signal.signal(signal.SIGINT, _remember)
    try:
        yield obey
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def whole() -> Iterator[None]:
    """The first Ctrl-C inside the block is raised on leaving it, the second at once; in the main thread, where Python's
    handler stands or that of `remembered`."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if not main or handler not in (signal.default_int_handler, _remember):
        yield
        return
    came: list[int] = []

    def later(signum: int, frame: Any) -> None:
        came.append(signum)
        _heard.append(signum)
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
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

"""Several processes on one study: each loads the model itself and takes trials until there are enough."""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import optuna

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.disk import room_needed
from ctxpeft.search.fresh import final_rate, final_rates, fresh_run, fresh_runs
from ctxpeft.search.job import Job
from ctxpeft.search.loop import work
from ctxpeft.search.outcome import Row, rows_of
from ctxpeft.search.progress import Watch
from ctxpeft.search.storage import load_study

INTERRUPTED = 130
POLL_S = 2.0
GRACE_S = 5.0
Part = Callable[[Laboratory, str, int, int], None]


def designs_in_processes(
    job: Job, study: optuna.Study, owner: str, workers: int, after: Callable[[list[Row]], None]
) -> None:
    """Share the study's trials among `workers` processes and follow them.

    Raises KeyboardInterrupt if one was interrupted, CtxpeftError if one fails.
    """

    def follow() -> None:
        after(rows_of(study.get_trials(deepcopy=False)))

    _in_processes(_designs, job, owner, workers, follow)


def finals_in_processes(job: Job, owner: str, workers: int) -> None:
    """Train the finalists' fresh runs, each by one process; their results lie in the folder of runs afterwards."""
    _in_processes(_finals, job, owner, workers, lambda: None)


def _in_processes(part: Part, job: Job, owner: str, workers: int, follow: Callable[[], None]) -> None:
    """Run `part` in each of some processes. An interrupt of this one is told to them, each ends at its next step."""
    context = multiprocessing.get_context("spawn")
    shared = replace(job, threads=max(1, (os.cpu_count() or 1) // workers))
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [
        context.Process(target=_main, args=(part, shared, owner, index, workers, theirs))
        for index, (_, theirs) in enumerate(pipes)
    ]
    try:
        with _signals_held():
            for process in processes:
                process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(POLL_S)
            follow()
    except BaseException:
        for process, (ours, _) in zip(processes, pipes, strict=True):
            if process.pid is not None:
                _stop(process, ours)
        raise
    finally:
        for process in processes:
            if process.pid is not None:
                process.join()
    follow()
    if any(process.exitcode == INTERRUPTED for process in processes):
        raise KeyboardInterrupt
    bad = [str(process.exitcode) for process in processes if process.exitcode]
    if bad:
        raise CtxpeftError(
            f"{len(bad)} of {workers} workers stopped with exit code {bad[0]}; the same command goes on"
        )


def _stop(process: SpawnProcess, pipe: Connection) -> None:
    """Interrupt a worker that is at work; one that still loads holds no trial and is ended at once."""
    if not pipe.poll():
        process.terminate()
        return
    with contextlib.suppress(OSError):
        pipe.send(None)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started here get no SIGINT of the terminal: it would hit them amid their imports.

    One that comes meanwhile reaches this process afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process starts it, and it would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _main(part: Part, job: Job, owner: str, index: int, workers: int, pipe: Connection) -> None:
    told = threading.Event()
    threading.Thread(target=_obey, args=(pipe, told), daemon=True).start()
    try:
        laboratory = job.open()
        pipe.send(None)
        with room_needed(job.out):
            part(laboratory, owner, index, workers)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if told.is_set():  # an interrupt amid an import comes out as whatever the package makes of it
            raise SystemExit(INTERRUPTED) from None
        if not isinstance(error, CtxpeftError):
            raise
        print(f"error: worker {index + 1}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _obey(pipe: Connection, told: threading.Event) -> None:
    """Interrupt the main thread when told so, and do not wait long for it; end at once when the parent is gone.

    The next start takes a trial that was left behind for an interrupted one.
    """
    try:
        pipe.recv()
    except EOFError:
        os._exit(1)
    told.set()
    _thread.interrupt_main()
    time.sleep(GRACE_S)
    os._exit(INTERRUPTED)


def _designs(laboratory: Laboratory, owner: str, index: int, workers: int) -> None:
    job = laboratory.job
    work(load_study(job.url, job.study), laboratory, Watch(), owner, worker=index)


def _finals(laboratory: Laboratory, owner: str, index: int, workers: int) -> None:
    job = laboratory.job
    rows = rows_of(load_study(job.url, job.study).get_trials(deepcopy=False))
    for row, task in list(final_rates(laboratory, rows))[index::workers]:
        final_rate(laboratory, row, task)
    for row, task, seed in list(fresh_runs(laboratory, rows))[index::workers]:
        fresh_run(laboratory, row, task, seed)

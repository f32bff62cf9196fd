"""Several processes on one study: each loads the model itself and takes trials until there are enough."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait

import optuna

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.finals import fresh_run, fresh_runs
from ctxpeft.search.job import Job
from ctxpeft.search.loop import work
from ctxpeft.search.outcome import Row, rows_of
from ctxpeft.search.progress import Watch
from ctxpeft.search.storage import load_study

INTERRUPTED = 130
POLL_S = 2.0
Part = Callable[[Job, str, int, int], None]


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
    context = multiprocessing.get_context("spawn")
    shared = replace(job, threads=max(1, (os.cpu_count() or 1) // workers))
    arguments = [(part, shared, owner, index, workers) for index in range(workers)]
    processes = [context.Process(target=_main, args=a) for a in arguments]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(POLL_S)
            follow()
    finally:
        for process in processes:
            process.join()
    follow()
    if any(process.exitcode == INTERRUPTED for process in processes):
        raise KeyboardInterrupt
    bad = [str(process.exitcode) for process in processes if process.exitcode]
    if bad:
        raise CtxpeftError(
            f"{len(bad)} of {workers} workers stopped with exit code {bad[0]}; the same command goes on"
        )


def _main(part: Part, job: Job, owner: str, index: int, workers: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        part(job, owner, index, workers)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _end_with_parent() -> None:
    """End at once when the parent is gone: its next start takes this worker's trials for interrupted ones."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _designs(job: Job, owner: str, index: int, workers: int) -> None:
    work(load_study(job.url, job.study), job.open(), Watch(), owner, worker=index)


def _finals(job: Job, owner: str, index: int, workers: int) -> None:
    laboratory = job.open()
    rows = rows_of(load_study(job.url, job.study).get_trials(deepcopy=False))
    for row, task, seed in list(fresh_runs(laboratory, rows))[index::workers]:
        fresh_run(laboratory, row, task, seed)

"""The storage keeps its promise to several workers: a queued trial is taken once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxpeft.search.storage import load_study, open_study

QUEUED, WORKERS = 40, 4


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_queued_trial_is_taken_by_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_study(url, "queue", {}, [f"anchor-{i}" for i in range(QUEUED)])

    def take(_: int) -> list[int]:
        study = load_study(url, "queue")  # an engine of its own, as a process has
        return [study.ask().number for _ in range(QUEUED // WORKERS)]

    with ThreadPoolExecutor(WORKERS) as pool:
        taken = [number for numbers in pool.map(take, range(WORKERS)) for number in numbers]
    assert sorted(taken) == list(range(QUEUED))

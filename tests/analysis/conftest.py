"""The tiny model and task, ready to train."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxpeft.tasks import build_task, load_task
from ctxpeft.training import Bench, load_base, prepare
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["bench", "tiny_model", "tiny_task"]


@pytest.fixture(scope="session")
def bench(tiny_model: Path, tiny_task: dict[str, str]) -> Bench:
    """One model and one task for all tests: runs leave both as they were."""
    task = build_task(
        load_task({"name": "tiny", "template": "{text} Label:", "generate_limit": 4, **tiny_task})
    )
    return prepare(load_base(tiny_model), task)

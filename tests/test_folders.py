"""A folder of results is written into by the command that made it, and discarded by no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxpeft.analysis.compare import compare
from ctxpeft.errors import CtxpeftError
from ctxpeft.folders import COMPARISON, RUN, SEARCH, only_for
from ctxpeft.search.storage import owned
from ctxpeft.training import Bench, TrainingConfig, run
from tests.tasks.tiny import tiny_model, tiny_task
from tests.training.conftest import bench

__all__ = ["bench", "tiny_model", "tiny_task"]

QUICK = TrainingConfig(steps=1, batch_size=2, eval_every=0)


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    only_for(RUN, tmp_path / "nowhere")
    (tmp_path / "mine.txt").write_text("")
    only_for(RUN, tmp_path)
    (tmp_path / "compare.json").write_text("{}")
    only_for(COMPARISON, tmp_path)
    for what in (RUN, SEARCH):
        with pytest.raises(CtxpeftError, match=f"holds a comparison: take another --out for {what}"):
            only_for(what, tmp_path)
    (tmp_path / "search.json").write_text("{}")  # what was mixed before this was refused goes on
    only_for(SEARCH, tmp_path)


def test_no_command_touches_what_another_made(bench: Bench, tmp_path: Path) -> None:
    """Discarding a comparison removes `runs`, which a search keeps its own in."""
    for mark in ("search.json", "compare.json"):
        (tmp_path / mark / "runs").mkdir(parents=True)
        (tmp_path / mark / mark).write_text("{}")
    with pytest.raises(CtxpeftError, match="holds a search"):
        compare(bench, ["ia3", "none"], tmp_path / "search.json", seeds=1, config=QUICK, fresh=True)
    with pytest.raises(CtxpeftError, match="holds a search"):
        run(bench, "ia3", QUICK, out=tmp_path / "search.json", fresh=True)
    with pytest.raises(CtxpeftError, match="holds a comparison"), owned(tmp_path / "compare.json"):
        pass
    for mark in ("search.json", "compare.json"):
        assert (tmp_path / mark / "runs").is_dir()

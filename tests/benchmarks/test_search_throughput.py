"""The throughput benchmark runs end to end, and its ways rank the designs alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.search_throughput import Row, main, report
from tests.search.conftest import TINY_SPACE
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]


def test_runs_end_to_end(
    tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.yaml").write_text(TINY_SPACE)
    (tmp_path / "task.yaml").write_text(
        yaml.safe_dump({"name": "tiny", "template": "{text} Label:", **tiny_task})
    )
    out = tmp_path / "table.json"
    arguments = ["--space", str(tmp_path / "space.yaml"), "--model", str(tiny_model), "--designs", "2"]
    assert main([*arguments, "--task", str(tmp_path / "task.yaml"), "--out", str(out)]) == 0
    table = json.loads(out.read_text())["table"]
    assert len(table) == 6
    assert all(row["largest_difference"] < 1e-3 for row in table)
    assert table[0]["in_all"] == 1
    assert "| + designs side by side at the rung |" in capsys.readouterr().out


def test_the_rung_is_paid_for_all_and_the_full_run_for_those_that_go_on() -> None:
    slow = Row("slow", lambda *_: [], [4.0, 4.0], [10.0, 20.0], [0.2, 0.1], [0.2, 0.1])
    fast = Row("fast", lambda *_: [], [2.0, 2.0], [10.0, 20.0], [0.2, 0.1], [0.1, 0.2])
    assert slow.total(0.5) == 4 + 4 + 20
    assert slow.total(1.0) == 4 + 4 + 30
    first, second = report([slow, fast], 0.5)
    assert (first["same_order"], second["same_order"]) == (True, False)
    assert second["step"] == second["in_all"] == round(28 / 24, 3)
    assert second["largest_difference"] == 1.0


def test_a_mistake_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "quickstrat"]) == 2
    assert "did you mean 'quickstart'?" in capsys.readouterr().err

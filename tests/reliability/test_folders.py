"""Adapter folders from strangers: refused in one sentence, nothing run, memory bounded, the model as it was."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.folders import GIANT, GROWTH, HARMLESS, OURS, THEIRS, run


def test_strangers(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert list(result["rows"]) == [*OURS, *THEIRS]
    for family, row in result["rows"].items():
        assert row["escaped"] == [], family
        assert row["acts"] == [], family
        assert row["refused"] + row["loaded"] == row["folders"]
        assert row["loaded"] == 0 or family in HARMLESS, family
        assert row["seconds"] < 60, family
    assert result["peak_growth"] < GROWTH < GIANT
    assert result["unchanged"]
    assert not result["executed"]

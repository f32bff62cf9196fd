"""Training that is killed continues from a complete checkpoint or begins anew, and ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.training import CASES, measure


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path) -> None:
    """Every so many changes to the file system, from the first to the last, and at random."""
    kills = 3
    tallies = measure(tmp_path, kills, every=20)
    assert [tally.name for tally in tallies] == list(CASES)
    for tally in tallies:
        assert tally.faults == []
        assert tally.steps >= 6
        assert tally.continued >= 3
        assert tally.anew >= 1
        assert tally.continued + tally.anew + tally.finished == tally.steps + kills

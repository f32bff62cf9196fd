"""A large file is read as a stream, and what is kept of a row is little more than its text."""

from __future__ import annotations

from pathlib import Path

from ctxpeft.errors import one_line
from tests.reliability.data import broken, make_csv, measure

ROWS = 60_000  # more than are encoded at once
ROW_BYTES = 350  # at the peak, the texts beside; kept as objects it was 530


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    make_csv(path, ROWS)
    steps = {step["step"].split(":")[0]: step for step in measure(path)}
    assert steps["rows read"]["bytes"] < 4 << 20
    assert steps["task built"]["bytes"] < ROWS * ROW_BYTES + path.stat().st_size
    encoding = steps["prepared for a model"]["bytes"] - steps["task built"]["bytes"]
    assert encoding < 16 << 20


def test_every_broken_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    told = broken(tmp_path)
    assert "accepted" not in [sentence for _, sentence in told]
    assert all(sentence == one_line(sentence) for _, sentence in told)
    assert all(sentence.startswith("d.") for _, sentence in told)

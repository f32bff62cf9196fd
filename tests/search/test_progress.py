"""What a search tells while it runs: a panel that fits the terminal, plain lines when piped, times that add up."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ctxpeft.search.learning import Learning
from ctxpeft.search.outcome import RateResult, Row
from ctxpeft.search.panel import panel, running, tally
from ctxpeft.search.progress import Progress, Watch
from ctxpeft.spec.load import load_variant


def row(number: int, value: float, seconds: float = 20.0) -> Row:
    return Row(
        number,
        "completed",
        name=f"design-{number}",
        templates=("matrix", "channel-scale"),
        parameters=30_720,
        rate=0.003,
        rates=(RateResult(0.001, value + 1), RateResult(0.003, value + 0.5)),
        rung=value + 0.5,
        value=value,
        seconds=seconds,
        fingerprint=f"{number:08}",
    )


ROWS = [
    replace(row(0, 1.5), anchor="lora-qv"),
    *(row(n, 2.0 - 0.1 * n) for n in range(1, 8)),
    replace(row(8, 9.0), outcome="pruned", value=None),
    Row(9, "failed", reason="RuntimeError: out of memory", templates=("slots",)),
    Row(10, "running", templates=("slots",), fingerprint="f"),
]


def drawn(width: int, height: int = 25, rows: list[Row] = ROWS) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(
        panel(rows, "loss", 9, 14, "9/14 designs, about 1:40 left", "trial 10: step 3/50", width, height)
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_panel_shows_the_best_first_and_how_it_goes() -> None:
    lines = drawn(100)
    assert "9/14 designs, about 1:40 left" in lines[0]
    assert " ".join(lines[1].split()) == "best so far loss at the rung rate parameters seconds"
    assert " ".join(lines[2].split()) == "1 trial 7: matrix + channel-scale 1.3000 1.8000 0.003 30,720 20"
    assert [line.split()[0] for line in lines[2:7]] == ["1", "2", "3", "4", "5"]
    assert "lora-qv (anchor)" in lines[4]
    assert lines[-2].strip() == "7 completed, 1 pruned, 1 failed"
    assert lines[-1].strip() == "trial 10: step 3/50"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("height", [8, 12, 30])
def test_the_panel_fits_the_terminal(width: int, height: int) -> None:
    lines = drawn(width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 8)
    assert any("1.3000" in line for line in lines), "the best score is never left out"


def test_the_panel_before_anything_is_done() -> None:
    lines = drawn(100, rows=[])
    assert [line.strip() for line in lines[1:3]] == [
        "no design is done yet",
        "no design beyond the anchors yet",
    ]


def test_workers_are_told_by_what_they_train() -> None:
    assert running(ROWS) == "training trial 10"
    assert running([replace(ROWS[0], outcome="running")]) == "training lora-qv"
    assert running(ROWS[:3]) == ""
    assert tally(ROWS[:1]) == "no design beyond the anchors yet"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("ctxpeft.search.progress.time", found)
    return found


def test_piped_it_is_plain_lines_with_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch()
    # two rates at a rung of half a run: a trial of 20 s has a full run of 10 s, and six of them follow
    with Progress(14, "loss", watch, finals=6, rungs=(0.5,)) as progress:
        progress.resumed([])
        clock.now += 40
        watch.activity = "trial 2 at rate 0.003, rung"
        watch.start("", 50)
        progress.show(ROWS[:2])
        watch.update(7, "")
        clock.now += 1
        watch.update(8, "")
        progress.show(ROWS)
        clock.now += 40
        progress.fresh("fresh seeds, 1 of 3: design-7, 2 runs")
        clock.now += 31
        watch.update(0, "")
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[0].startswith(
        "[2/14] lora-qv: held-out loss 1.5000 at rate 0.003, 30,720 parameters, 20 s (best"
    )
    assert (
        lines[2] == "2/14 designs, about 4:00 left, then fresh seeds for about 1:00; 1 completed; "
        "trial 2 at rate 0.003, rung: step 0/50"
    )
    assert not any("step 8/50" in line for line in lines), "not more often than every half minute"
    assert "[10/14] trial 9 (slots): failed: RuntimeError: out of memory" in lines
    assert lines[-1].startswith(
        "10/14 designs, fresh seeds: about 0:29 left; 7 completed, 1 pruned, 1 failed; fresh"
    )


def test_after_the_first_anchor_the_time_left_is_not_that_of_anchors(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the designs stop at a rung of a fifth, where two rates are tried: 4 s of an anchor's 14 s."""
    anchor = replace(row(0, 1.5, seconds=14.0), anchor="lora-qv")
    stopped = replace(row(1, 9.0, seconds=2.0), outcome="pruned", value=None)
    with Progress(11, "loss", Watch(), rungs=(0.2,), keep=0.5, anchors=2) as progress:
        progress.resumed([])
        clock.now += 14
        progress.show([anchor])  # one anchor of 14 s is left, and nine designs of 0.4 x 10 + 0.5 x 10 s
        clock.now += 31
        progress.refresh()  # the next anchor takes long: no more than its own time is counted as spent
        progress.show([anchor, replace(anchor, number=2, anchor="ia3")])
        clock.now += 31
        progress.show(
            [anchor, replace(anchor, number=2, anchor="ia3"), stopped]
        )  # (2 x 9 + 2) / 3 s a design
    left = [part for part in capsys.readouterr().err.splitlines() if " left" in part]
    assert [line.split(" left")[0] for line in left] == [
        "1/11 designs, about 1:35",
        "1/11 designs, about 1:21",
        "3/11 designs, about 0:53",
    ]


def test_a_resumed_search_knows_the_time_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(12, "loss", Watch(), workers=2) as progress:
        progress.resumed([row(n, 2.0, seconds=30.0) for n in range(4)])
        progress.refresh()
    err = capsys.readouterr().err
    assert "resuming: 4 of 12 designs are done" in err
    assert "4/12 designs, about 2:00 left" in err


@pytest.mark.parametrize("apart", [True, False])
def test_rates_that_are_trained_one_by_one_are_named_one_by_one(apart: bool) -> None:
    """Else the same line comes once a rate, and its steps begin anew."""
    told: list[str] = []
    watch = Watch()

    class Stub:
        """A laboratory that only says what is shown."""

        job = SimpleNamespace(
            search=SimpleNamespace(together=True, seed=0, quality="loss", wanted=[], measured_at_rungs=())
        )
        tasks = ("t",)

        def apart(self, *_: object) -> bool:
            return apart

        def rung_steps(self, *_: object) -> int:
            return 3

        def train(self, *_: object, **__: object) -> Any:
            told.append(watch.activity)
            return SimpleNamespace(evaluations={})

        def train_rates(self, *_: object, **__: object) -> Any:
            told.append(watch.activity)
            return []

        def score(self, _: object) -> float:
            return 1.0

    learning = Learning(Stub(), watch, load_variant("lora-qv"), "trial 0")  # type: ignore[arg-type]
    learning._rung("t", [0.001, 0.003])
    one_by_one = ["trial 0 at rate 0.001, rung", "trial 0 at rate 0.003, rung"]
    assert told == (one_by_one if apart else ["trial 0 at rates 0.001, 0.003, rung"])

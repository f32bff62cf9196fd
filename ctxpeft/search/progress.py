"""What a search tells while it runs, on standard error: a live panel on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean
from types import TracebackType
from typing import Any

from ctxpeft.search.outcome import TRAINED, Row, ranking, tried
from ctxpeft.search.panel import panel, running, tally
from ctxpeft.search.score import shown

PRIOR = 2  # designs that the expected time of a design weighs


class Watch:
    """A run's reporter that remembers what goes on; it prints nothing itself."""

    def __init__(self) -> None:
        self.activity = ""
        self.step = 0
        self.steps = 0
        self.progress: Progress | None = None

    def note(self, text: str) -> None:
        """Notes of single runs are in their folders."""

    def start(self, title: str, steps: int) -> None:
        """A run begins."""
        self.step, self.steps = 0, steps

    def waiting(self, text: str) -> None:
        """There is nothing to do until others are done."""
        if self.progress is not None and text != self.activity:
            self.progress.say(text)
        self.start("", 0)
        self.activity = text

    def update(self, step: int, text: str) -> None:
        """A step is done."""
        self.step = step
        if self.progress is not None:
            self.progress.refresh()

    def stop(self) -> None:
        """A run is over."""


class Progress:
    """Shows the best so far, a bar with the time left, and what became of the trials.

    total: designs to train, anchors included. objective: `loss` or `metric`. workers: processes that share them.
    finals: full trainings of a method that follow, each on all tasks. rungs: as parts of a full run. keep: the share of
    the designs that is expected to pass a rung. anchors: how many of `total` are anchors, which pass every rung.
    """

    interval_s = 30.0

    def __init__(
        self,
        total: int,
        objective: str,
        watch: Watch,
        workers: int = 1,
        finals: int = 0,
        rungs: Sequence[float] = (0.0,),
        keep: float = 1.0,
        anchors: int = 0,
    ) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        if not self.console.is_terminal:
            self.console.soft_wrap = True
        self.total, self.objective, self.watch = total, objective, watch
        self.workers, self.finals, self.rungs = workers, finals, rungs
        self.keep, self.anchors = keep, anchors
        self.rows: Sequence[Row] = []
        self._done_at = time.monotonic()  # when the last design was done
        self.told: set[int] = set()
        self.at_start = 0
        self.finals_began: float | None = None
        self._spoke = 0.0
        self._live: Any = None
        watch.progress = self

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                console=self.console, refresh_per_second=4, transient=True, get_renderable=self._panel
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line, whatever the output is."""
        self.console.print(text, markup=False)

    def resumed(self, rows: Sequence[Row]) -> None:
        """What the study already held when it was opened."""
        self.rows = rows
        self.told = {row.number for row in rows if row.outcome != "running"}
        self.at_start = self._trained()
        if self.at_start:
            self.say(f"resuming: {self.at_start} of {self.total} designs are done")

    def show(self, rows: Sequence[Row]) -> None:
        """Tell what is new in the study."""
        before, self.rows = self._trained(), rows
        if self._trained() > before:
            self._done_at = time.monotonic()
        best = ranking(rows)
        for row in rows:
            if row.number in self.told or row.outcome == "running":
                continue
            self.told.add(row.number)
            if row.outcome in ("infeasible", "interrupted", "memoised"):
                continue
            crown = " (best so far)" if best and best[0].number == row.number else ""
            self.say(f"[{self._trained()}/{self.total}] {describe(row, self.objective)}{crown}")
        self.refresh()

    def refresh(self) -> None:
        """Move the panel; piped, say now and then what goes on."""
        now = time.monotonic()
        if self._live is None and now - self._spoke > self.interval_s:
            self._spoke = now
            self.say(f"{self._left()}; {tally(self.rows)}; {self._activity()}")

    def _trained(self) -> int:
        return len(tried(self.rows)) + sum(
            1 for r in self.rows if r.anchor and r.outcome in (*TRAINED, "memoised")
        )

    def fresh(self, text: str) -> None:
        """The finals have come to another method."""
        self.finals_began = self.finals_began or time.monotonic()
        self.watch.start("", 0)
        self.watch.activity = text
        self.say(text)

    def _left(self) -> str:
        done = self._trained()
        designs = f"{done}/{self.total} designs"
        after = self._finals_s()
        if self.finals_began is not None:
            left = max(0.0, after - (time.monotonic() - self.finals_began))
            return f"{designs}, fresh seeds: about {clock(left)} left" if after else f"{designs}, fresh seeds"
        then = ", then fresh seeds" if self.finals else ""
        before_finals = self._designs_s()
        if before_finals is None:
            return f"{designs}{then}"
        then += f" for about {clock(after)}" if then and after else ""
        return f"{designs}, about {clock(before_finals)} left{then}"

    def _designs_s(self) -> float | None:
        """Seconds until the designs are done; None before one was trained to the end.

        An anchor takes every rate to the first rung and a full run. Of the other designs a share stops at each rung:
        what is expected of them counts like PRIOR designs beside those that were seen.
        """
        full = self._full_s()
        if full is None:
            return None
        seen = tried(self.rows)
        rates = fmean(len(row.rates) for row in self.rows if row.outcome == "completed")
        first, later = self.rungs[0] * rates, self.rungs[1:]
        anchor = full * (1 + first + sum(later))
        passed = sum(rung * self.keep**level for level, rung in enumerate(later, 1))
        expected = full * (first + passed + self.keep ** len(self.rungs))
        design = (PRIOR * expected + sum(row.seconds for row in seen)) / (PRIOR + len(seen))
        anchors = max(0, self.anchors - (self._trained() - len(seen)))
        designs = max(0, self.total - self._trained() - anchors)
        spent = min(time.monotonic() - self._done_at, anchor if anchors else design if designs else 0.0)
        return max(0.0, (anchors * anchor + designs * design) / self.workers - spent)

    def _full_s(self) -> float | None:
        """Seconds of a full run, from the completed trials: all rates at the first rung, then the best alone."""
        first, rest = self.rungs[0], sum(self.rungs[1:])
        full = [
            row.seconds / (1 + rest + first * len(row.rates))
            for row in self.rows
            if row.outcome == "completed" and row.seconds
        ]
        return fmean(full) if full else None

    def _finals_s(self) -> float:
        """Seconds that the finals take."""
        return self.finals * (self._full_s() or 0.0) / self.workers

    def _activity(self) -> str:
        w = self.watch
        if w.activity:
            return f"{w.activity}: step {w.step}/{w.steps}" if w.steps else w.activity
        return running(self.rows) or "waiting"

    def _panel(self) -> Any:
        size = self.console.size
        return panel(
            self.rows,
            self.objective,
            self._trained(),
            self.total,
            self._left(),
            self._activity(),
            size.width,
            size.height,
        )


def announce(text: str) -> None:
    """One line before anything can be shown: loading a model takes a while."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False, style="dim")


def describe(row: Row, objective: str) -> str:
    """One trial in one line."""
    name = row.anchor or f"trial {row.number} ({' + '.join(row.templates)})"
    size = f", {row.parameters:,} parameters" if row.parameters else ""
    if row.outcome == "completed" and row.value is not None:
        return f"{name}: {shown(row.value, objective)} at rate {row.rate_text}{size}, {row.seconds:.0f} s"
    return f"{name}: {row.outcome}{size}" + (f": {row.reason}" if row.reason else "")


def clock(seconds: float) -> str:
    """`3:07` or `1:02:45`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""Progress of runs, for people: a bar on a terminal, plain lines when piped, nothing by default."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol


class Reporter(Protocol):
    """What a run tells while it goes on."""

    def note(self, text: str) -> None:
        """Something worth knowing, once."""

    def start(self, title: str, steps: int) -> None:
        """A run of `steps` steps begins."""

    def update(self, step: int, text: str) -> None:
        """`step` steps are done."""

    def stop(self) -> None:
        """The run is over."""


class Silent:
    """Tells nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def start(self, title: str, steps: int) -> None:
        """Nothing."""

    def update(self, step: int, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class ConsoleReporter:
    """Tells on standard error: a rich bar on a terminal, else one line every ten seconds. NO_COLOR is honoured."""

    interval_s = 10.0

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self._bar: Any = None
        self._task: Any = None
        self._title, self._steps, self._told = "", 0, 0.0

    def note(self, text: str) -> None:
        """One line."""
        self._console.print(f"note: {text}", markup=False)

    def start(self, title: str, steps: int) -> None:
        """Open the bar, or print the first line."""
        self._title, self._steps, self._told = title, steps, time.monotonic()
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(title, total=steps, text="")
        else:
            self._console.print(f"{title}: {steps} steps", markup=False)

    def update(self, step: int, text: str) -> None:
        """Move the bar; without one, print a line when ten seconds have passed."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif time.monotonic() - self._told > self.interval_s:
            self._told = time.monotonic()
            self._console.print(f"{self._title}: step {step}/{self._steps} {text}", markup=False)

    def stop(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

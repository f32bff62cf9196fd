"""The one callback of a run: it watches the stock Trainer, writes metrics, and stops it when asked."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from ctxpeft.files import write_text
from ctxpeft.training._folder import COMPLETE
from ctxpeft.training._order import OrderedExamples
from ctxpeft.training._result import HeldOut
from ctxpeft.training.progress import Reporter

_METRICS = {
    "loss": "loss",
    "eval_loss": "held_out_loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
OnEvaluate = Callable[[int, int, float], bool | None]


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Follows one run.

    on_evaluate: called with (step, tokens, held-out loss); a true answer stops the run.
    folder: where `metrics.jsonl` goes; None writes nothing.
    patience: held-out measurements without a better one before training stops.
    measures: whether held-out loss is measured, and so after the last step too.
    """

    def __init__(
        self,
        data: OrderedExamples,
        reporter: Reporter,
        on_evaluate: OnEvaluate | None,
        folder: Path | None,
        patience: int | None,
        measures: bool,
    ) -> None:
        self.data, self.reporter, self.folder, self._measures = data, reporter, folder, measures
        self._on_evaluate, self._patience = on_evaluate, patience
        self.stopped: str | None = None
        self.interrupted = False
        self._text = ""

    def history(self, state: Any) -> list[HeldOut]:
        """Held-out losses so far, those before a resume included."""
        return [
            HeldOut(int(e["step"]), self.data.tokens_after(int(e["step"])), float(e["eval_loss"]))
            for e in state.log_history
            if "eval_loss" in e
        ]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Progress; an interrupt saves and stops here."""
        self.reporter.update(state.global_step, self._text)
        if state.global_step >= state.max_steps and self._measures:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = self._patience is not None
        if self.interrupted:
            control.should_save = self.folder is not None
            control.should_evaluate = False
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Training loss, for the progress line and for divergence."""
        loss = (logs or {}).get("loss")
        if loss is not None:
            self._text = f"loss {loss:.4f}"
            if not math.isfinite(loss):
                self._stop("diverged", control)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Held-out loss: ask the hook, count patience."""
        history = self.history(state)
        now = history[-1]
        self._text = f"held-out loss {now.loss:.4f}"
        if not math.isfinite(now.loss):
            self._stop("diverged", control)
            return
        if self._on_evaluate and self._on_evaluate(now.step, now.tokens, now.loss):
            self._stop("callback", control)
        elif self._patience and _without_gain(history) >= self._patience:
            self._stop("early", control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint complete: a killed process may leave half of one."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if checkpoint.is_dir():
            write_text(checkpoint / COMPLETE, "")
        self._write_metrics(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last metrics."""
        self._write_metrics(state)

    def _stop(self, why: str, control: Any) -> None:
        self.stopped = self.stopped or why
        control.should_training_stop = True

    def _write_metrics(self, state: Any) -> None:
        if self.folder is None:
            return
        lines = []
        for entry in state.log_history:
            step = int(entry["step"])
            kept = {name: _finite(entry[key]) for key, name in _METRICS.items() if key in entry}
            if kept:
                tokens = self.data.tokens_after(min(step, len(self.data) // self.data.per_step))
                lines.append(json.dumps({"step": step, "tokens": tokens, **kept}))
        write_text(self.folder / "metrics.jsonl", "".join(line + "\n" for line in lines))


class Stoppable(Protocol):
    """What an interrupt is told to."""

    interrupted: bool


@contextlib.contextmanager
def interruptible(watcher: Stoppable) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run after the current step, saved; the second ends it at once.

    Raises:
        KeyboardInterrupt: on leaving the block after the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(signum: int, frame: Any) -> None:
        if watcher.interrupted:
            raise KeyboardInterrupt
        watcher.interrupted = True

    before = {s: signal.signal(s, first) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if watcher.interrupted:
        raise KeyboardInterrupt


def _without_gain(history: list[HeldOut]) -> int:
    """How many measurements came after the best one."""
    best = min(range(len(history)), key=lambda i: history[i].loss)
    return len(history) - 1 - best


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None

"""Who answers when the walk asks: Optuna's trial or a random generator."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

from ctxpeft.search.space.nodes import Label, Range


class Chooser(Protocol):
    """Answers questions, each with a name of its own. The same name is always asked with the same alternatives."""

    def option(self, name: str, labels: Sequence[Label]) -> Label:
        """One of the labels."""
        ...

    def number(self, name: str, span: Range) -> float:
        """A number in the span."""
        ...


class TrialChooser:
    """Questions become dimensions of an Optuna trial."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    def option(self, name: str, labels: Sequence[Label]) -> Label:
        label: Label = self.trial.suggest_categorical(name, list(labels))
        return label

    def number(self, name: str, span: Range) -> float:
        if span.integer:
            return int(self.trial.suggest_int(name, int(span.low), int(span.high), log=span.log))
        return float(self.trial.suggest_float(name, span.low, span.high, log=span.log))


class RandomChooser:
    """Independent uniform answers; `asked` lists them by name."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: dict[str, Label] = {}

    def option(self, name: str, labels: Sequence[Label]) -> Label:
        label = self.random.choice(list(labels))
        self.asked[name] = label
        return label

    def number(self, name: str, span: Range) -> float:
        low, high = (math.log(span.low), math.log(span.high)) if span.log else (span.low, span.high)
        drawn = self.random.uniform(low, high)
        value = math.exp(drawn) if span.log else drawn
        if span.integer:
            value = min(max(round(value), int(span.low)), int(span.high))
        self.asked[name] = value
        return value

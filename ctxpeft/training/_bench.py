"""A base model and a task, encoded once: what many runs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ctxpeft import __version__
from ctxpeft.errors import DataError
from ctxpeft.tasks import ClassifierEncoder, Encoded, Encoder, Example, TaskData, can_end
from ctxpeft.training._base import Base


@dataclass(frozen=True)
class Elsewhere:
    """Examples of another task, on which runs of this one are measured too."""

    encoder: Encoder
    examples: Sequence[Example]

    def digest(self) -> str:
        """SHA-256 of what decides a measurement there."""
        return replace(self.encoder.task, train=(), validation=(), test=self.examples, ood=()).digest()


@dataclass(frozen=True)
class Bench:
    """A base model and a task, encoded once: what many runs share.

    elsewhere: splits of other tasks by name, `ood` and `unrelated` in a comparison.
    """

    base: Base
    task: TaskData
    encoder: Encoder
    train: Sequence[Encoded]
    held_out: tuple[Encoded, ...]
    notes: tuple[str, ...] = ()
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)

    def drawn(self, seed: int) -> Bench:
        """The bench of one run: under `draw: seed` with the training examples this seed draws."""
        task = self.task.drawn(seed)
        if task is self.task:
            return self
        notes = (*self.notes, *task.notes[len(self.task.notes) :])
        return replace(self, task=task, train=self.encoder.on_demand(task.train), notes=notes)

    def measured_on(self, split: str) -> Elsewhere:
        """The encoder and the examples of a split, the task's own or another's; no examples where there is none."""
        if split in self.elsewhere:
            return self.elsewhere[split]
        own = ("train", "validation", "test", "ood")
        return Elsewhere(self.encoder, self.task.split(split) if split in own else ())

    def describe(self) -> dict[str, Any]:
        """What of the base and the task decides a result, and (under `about`) what only describes it."""
        others = {name: _plain(other.encoder.task) for name, other in self.elsewhere.items()}
        return {
            "model": {"digest": self.base.digest(), "dtype": self.base.dtype},
            "task": {"digest": self.task.digest()},
            "about": {
                "ctxpeft": __version__,
                "model": self.base.name,
                "task": _plain(self.task),
                **({"elsewhere": others} if others else {}),
                "template": self.task.template,
                "train_examples": len(self.task.train),
                "notes": list(self.notes),
            },
        }


def _plain(task: TaskData) -> dict[str, Any]:
    return task.spec.model_dump(mode="json", exclude_defaults=True)


def prepare(base: Base, task: TaskData, elsewhere: Mapping[str, TaskData] | None = None) -> Bench:
    """Encode `task` for `base`.

    Args:
        base: the model.
        task: what is trained.
        elsewhere: other tasks by the name their test data (training data, where there are none) get as a split.

    Raises:
        DataError: see `Encoder`; or the task has a split of that name already.
    """
    notes = list(task.notes)
    encoder = encoder_for(base, task)
    if not encoder.eos and task.kind != "language_modelling" and not base.head:
        notes.append(
            "answers end without an end-of-text token, which this model's output layer cannot tell from tokens it "
            "never saw"
        )
    train = encoder.on_demand(task.train)
    held_out = tuple(encoder.encode(task.validation))
    if encoder.skipped:
        notes.append(f"{encoder.skipped} examples whose answer exceeds max_length were left out")
    others = {}
    for name, other in (elsewhere or {}).items():
        if name in ("train", "validation", "test") or (name == "ood" and task.ood):
            raise DataError(f"{task.spec.name} has {name} data of its own")
        others[name] = Elsewhere(encoder_for(base, other), other.test or other.train)
    return Bench(base, task, encoder, train, held_out, tuple(notes), others)


def encoder_for(base: Base, task: TaskData) -> Encoder:
    """The encoder of `task` for `base`: its tokenizer, its positions, whether it can end an answer.

    Raises:
        DataError: the task asks for a classification head and the base has none, or the other way round.
    """
    if bool(base.head) != (task.spec.head == "classifier"):
        wants = "tells classes by a head" if base.head else "has no classification head"
        raise DataError(f"{task.spec.name} has head={task.spec.head}, and {base.name} {wants}")
    if base.head:
        return ClassifierEncoder(base.tokenizer, task, base.positions)
    return Encoder(base.tokenizer, task, base.positions, can_end(base.model, base.tokenizer))

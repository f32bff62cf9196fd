"""A base model and a task, encoded once: what many runs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctxpeft import __version__
from ctxpeft.tasks import Encoded, Encoder, TaskData, can_end
from ctxpeft.training._base import Base


@dataclass(frozen=True)
class Bench:
    """A base model and a task, encoded once: what many runs share."""

    base: Base
    task: TaskData
    encoder: Encoder
    train: tuple[Encoded, ...]
    held_out: tuple[Encoded, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What of the base and the task decides a result, and (under `about`) what only describes it."""
        return {
            "model": {"digest": self.base.digest(), "dtype": self.base.dtype},
            "task": {"digest": self.task.digest()},
            "about": {
                "ctxpeft": __version__,
                "model": self.base.name,
                "task": self.task.spec.model_dump(mode="json", exclude_defaults=True),
                "template": self.task.template,
                "train_examples": len(self.task.train),
                "notes": list(self.notes),
            },
        }


def prepare(base: Base, task: TaskData) -> Bench:
    """Encode `task` for `base`.

    Raises:
        DataError: see `Encoder`.
    """
    notes = list(task.notes)
    encoder = encoder_for(base, task)
    if not encoder.eos and task.kind != "language_modelling":
        notes.append("answers have no end-of-text token: the model cannot tell it from unused tokens")
    train = tuple(encoder.encode(task.train))
    held_out = tuple(encoder.encode(task.validation))
    if encoder.skipped:
        notes.append(f"{encoder.skipped} examples whose answer exceeds max_length were left out")
    return Bench(base, task, encoder, train, held_out, tuple(notes))


def encoder_for(base: Base, task: TaskData) -> Encoder:
    """The encoder of `task` for `base`: its tokenizer, its positions, whether it can end an answer."""
    return Encoder(base.tokenizer, task, base.positions, can_end(base.model, base.tokenizer))

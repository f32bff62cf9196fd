"""`TrainingConfig`: how a run trains, with every default stated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from ctxpeft.spec.base import Spec

if TYPE_CHECKING:
    from ctxpeft.training._methods import Method


class TrainingConfig(Spec):
    """Settings of one run. Those left None are filled from the variant's hints, else from the defaults beside them;
    the learning rate from what the method's blocks declare (`Method.usual_rate`).

    Steps are optimiser steps; `epochs` replaces `steps` when given. Held-out loss is measured every `eval_every`
    steps (a fifth of the run when None, never when 0) on `eval_limit` validation examples. With `patience`,
    training stops after that many measurements without a better one, and the best adapter is restored.
    """

    learning_rate: Annotated[float, Field(gt=0, lt=100)] | None = None
    steps: Annotated[int, Field(ge=1)] = 250
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 16
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None  # 0.06
    weight_decay: Annotated[float, Field(ge=0)] | None = None  # 0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    scheduler: Annotated[str, Field(pattern="^(cosine|linear|constant_with_warmup)$")] = "cosine"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    eval_every: Annotated[int, Field(ge=0)] | None = None
    eval_limit: Annotated[int, Field(ge=1)] = 200
    patience: Annotated[int, Field(ge=1)] | None = None
    save_every: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Checkpoints; eval_every when None."
    )
    group_by_length: bool = False
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _patience_measures(self) -> TrainingConfig:
        if self.patience is not None and self.eval_every == 0:
            raise ValueError(
                "patience counts held-out measurements, of which eval_every: 0 makes none; expected eval_every left "
                "out or a whole number ≥ 1"
            )
        return self

    def resolved(self, method: Method, train_examples: int) -> TrainingConfig:
        """Every field filled; `epochs` turned into steps."""
        from ctxpeft.spec.variant import TrainingHints  # imports every block, and torch

        hints = method.variant.training if method.variant else TrainingHints()
        steps = self.steps
        if self.epochs is not None:
            per_epoch = train_examples / (self.batch_size * self.gradient_accumulation)
            steps = max(1, math.ceil(self.epochs * per_epoch))
        every = max(1, steps // 5) if self.eval_every is None else self.eval_every
        return self.model_copy(
            update={
                "steps": steps,
                "epochs": None,
                "learning_rate": self.learning_rate or method.usual_rate(),
                "warmup_ratio": _first(self.warmup_ratio, hints.warmup_ratio, 0.06),
                "weight_decay": _first(self.weight_decay, hints.weight_decay, 0.0),
                "eval_every": every,
                "save_every": self.save_every
                if self.patience is None and self.save_every
                else (every or steps),
            }
        )

    def warmup_steps(self) -> int:
        """Optimiser steps over which the learning rate rises."""
        return round((self.warmup_ratio or 0.0) * self.steps)


def _first(*values: float | None) -> float:
    return next(v for v in values if v is not None)

"""Warm-up, stable, decay: the decay is a run of its own from any checkpoint, so its start is decided late.

Hu et al., "MiniCPM", 2024, arXiv:2404.06395; Hägele et al., 2024, arXiv:2405.18392.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Factor on the learning rate: rises over `warmup` steps, then 1; from step `decay_from` falls to 0 linearly.

    `decay_factor` is where the fall begins: less than 1 shortens a decay that is under way.
    """

    warmup: int
    decay_from: int | None = None
    decay_steps: int = 0
    decay_factor: float = 1.0

    def factor(self, step: int) -> float:
        """The factor at a step counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup)
        if self.decay_from is None or step < self.decay_from:
            return rising
        return rising * self.decay_factor * max(0.0, 1 - (step - self.decay_from) / self.decay_steps)

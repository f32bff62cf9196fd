"""Learning rates to try: a centre for what a variant is, times a few factors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ctxpeft.errors import did_you_mean
from ctxpeft.spec.base import Spec
from ctxpeft.spec.registry import kinds
from ctxpeft.spec.variant import Variant

Rate = Annotated[float, Field(gt=0)]
CENTRES: dict[str, float] = {
    "peft": 3e-3,
    "matrix": 3e-3,
    "slots": 3e-2,
    "inside.slots": 5e-2,
    "vector": 1e-2,
    "none": 1e-2,
}


class Rates(Spec):
    """Rates of each design: `centre` times every one of `multipliers`, or a list of rates for what `centre` names.

    Keys of `centre`: `peft`, a kind of memory, or a placement and a kind (`inside.slots`); the more exact key
    wins. What the file leaves out keeps the built-in centre, measured on a 3M-parameter model. A variant of several
    modules goes by its first; a variant's own hint `training.learning_rate` comes first.
    """

    multipliers: Annotated[list[Rate], Field(min_length=1)] = Field([1 / 3, 1.0, 3.0])
    centre: dict[str, Rate | Annotated[list[Rate], Field(min_length=1)]] = Field(default_factory=dict)

    @field_validator("centre")
    @classmethod
    def _known(cls, value: dict[str, Rate | list[Rate]]) -> dict[str, Rate | list[Rate]]:
        memories = list(kinds("memory"))
        valid = ["peft", *memories, *(f"{place}.{m}" for place in ("inside", "outside") for m in memories)]
        for key in value:
            if key not in valid:
                raise ValueError(f"unknown key '{key}'{did_you_mean(key, valid)}")
        return value

    def of(self, variant: Variant) -> list[float]:
        """The rates to try, rising."""
        hint = variant.training.learning_rate
        if hint is not None:
            return self._grid(hint)
        if variant.peft is not None:
            return self._grid(self._centre("peft"))
        first = variant.modules[0]
        return self._grid(self._centre(f"{first.placement}.{first.memory.kind}", first.memory.kind))

    def _centre(self, *keys: str) -> float | list[float]:
        for table in (self.centre, CENTRES):
            for key in keys:
                if key in table:
                    return table[key]
        return 1e-2

    def _grid(self, centre: float | list[float]) -> list[float]:
        values = centre if isinstance(centre, list) else [centre * m for m in self.multipliers]
        return sorted({float(f"{value:.3g}") for value in values})

"""Learning rates to try: a centre for what a variant is, times a few factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from ctxpeft.analysis.rates import rounded
from ctxpeft.errors import did_you_mean
from ctxpeft.spec.base import Spec
from ctxpeft.spec.registry import kinds

if TYPE_CHECKING:
    from ctxpeft.spec.module import ModuleSpec
    from ctxpeft.spec.variant import Variant

Rate = Annotated[float, Field(gt=0)]


class Rates(Spec):
    """Rates of each design: a centre times every one of `multipliers`, or the list of rates that `centre` names.

    The centre of a design is its hint `training.learning_rate`, else what its blocks declare, the smallest of several
    modules (`Variant.usual_rate`). `centre` replaces what blocks declare; its keys are `peft`, a kind of memory, or a
    placement and a kind (`inside.slots`), of which the more exact one wins. Both are
    divided by a module's `learning_rate_ratio`.
    widen: while the best of several rates is the smallest or the largest tried, one more beyond it, at most so often.
    """

    multipliers: Annotated[list[Rate], Field(min_length=1)] = Field([1 / 3, 1.0, 3.0])
    widen: Annotated[int, Field(ge=0, le=4)] = 2
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
        """The rates to try first, rising."""
        if variant.training.learning_rate is not None:
            return self._grid(variant.training.learning_rate)
        if variant.peft is not None:
            return self._grid(self._centre("peft") or variant.usual_rate())
        return min(
            (self._grid(self._of_module(module)) for module in variant.modules), key=lambda grid: grid[0]
        )

    def _of_module(self, module: ModuleSpec) -> float | list[float]:
        kind, ratio = module.memory.kind, module.learning_rate_ratio
        said = self._centre(f"{module.placement}.{kind}", kind)
        if isinstance(said, list):
            return [rate / ratio for rate in said]
        return said / ratio if said else module.usual_rate()

    def _centre(self, *keys: str) -> float | list[float] | None:
        """What the file says for the first of `keys` it names."""
        return next((self.centre[key] for key in keys if key in self.centre), None)

    def _grid(self, centre: float | list[float]) -> list[float]:
        values = centre if isinstance(centre, list) else [centre * m for m in self.multipliers]
        return sorted({rounded(value) for value in values})

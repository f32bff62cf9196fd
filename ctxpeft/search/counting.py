"""What a space is on a model: its parameter counts, remembered by fingerprint, and the stacks it can stand in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ctxpeft.errors import SpecError
from ctxpeft.search.budget import Target
from ctxpeft.search.settings import Budget, Like
from ctxpeft.search.space.hosted import hosted
from ctxpeft.search.spacefile import Space
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant

if TYPE_CHECKING:
    from torch import nn


class Counter:
    """`counter(variant)` is the number of trainable parameters the variant has on the model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.known: dict[str, int] = {}

    def __call__(self, variant: Variant) -> int:
        from ctxpeft.hosts.count import count_parameters

        key = variant.fingerprint()
        if key not in self.known:
            self.known[key] = count_parameters(self.model, variant)
        return self.known[key]


def target_of(budget: Budget | None, counter: Counter) -> Target | None:
    """The budget in numbers; `like` is counted on the model."""
    if budget is None:
        return None
    wanted = budget.parameters
    parameters = counter(load_variant(wanted.like)) if isinstance(wanted, Like) else wanted
    return Target(parameters, budget.tolerance, tuple(budget.shares))


def space_on(space: Space, model: nn.Module) -> Space:
    """The space without the stacks that the model lacks. Raises SpecError where a template has no other."""
    from ctxpeft.hosts.discover import discover

    stacks = list(dict.fromkeys(layer.stack for layer in discover(model)))
    try:
        return replace(space, positions=hosted(space.positions, stacks))
    except SpecError as error:
        raise SpecError(f"{space.name}: {error}") from None

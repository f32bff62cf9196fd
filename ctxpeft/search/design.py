"""A design: what the walk drafted, at the size the budget asks for, as a variant that the spec accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ctxpeft.errors import HostError
from ctxpeft.search.budget import Target, nearest
from ctxpeft.search.space.chooser import Chooser
from ctxpeft.search.space.nodes import Position
from ctxpeft.search.space.walk import Draft, Free, InfeasibleError, walk
from ctxpeft.spec.base import compact
from ctxpeft.spec.explain import dotted
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.variant import Variant

Count = Callable[[Variant], int]


@dataclass(frozen=True)
class Design:
    """A variant with its size; `templates` are the space's names of its modules."""

    variant: Variant
    parameters: int
    templates: tuple[str, ...] = ()


def sample(
    positions: tuple[Position, ...],
    chooser: Chooser,
    count: Count,
    target: Target | None,
    guide: bool = False,
) -> Design:
    """One design of the space, within the construction guide if asked. Raises InfeasibleError with the reason."""
    draft = walk(positions, chooser, solve=target is not None, guide=guide)
    if target is not None:
        _solve(draft, chooser, count, target)
    variant = variant_of(draft.modules)
    parameters = _counted(count, variant)
    if target is not None and not target.meets(parameters):
        sizes = [f"{free.key} {free.holder[free.key]}" for free in draft.free if free is not None]
        nearest_size = f"at its nearest size ({', '.join(sizes)})" if sizes else "and no free size"
        raise InfeasibleError(
            "budget",
            f"{parameters:,} parameters {nearest_size}; the budget is {target.parameters:,} +- {target.tolerance:.1%}",
        )
    return Design(variant, parameters, tuple(draft.templates))


def variant_of(modules: list[dict[str, Any]]) -> Variant:
    """The variant of some modules, named by its fingerprint. Raises InfeasibleError where the spec refuses it."""
    try:
        checked = [ModuleSpec.model_validate(module) for module in modules]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        where = dotted([part for part in first["loc"] if not str(part).startswith("function-")])
        rule = "legality" if first["type"] == "illegal_combination" else "spec"
        raise InfeasibleError(rule, f"{where}: {message}" if first["loc"] else message) from None
    plain = [compact(module) for module in checked]
    unnamed = Variant.model_validate({"name": "design", "modules": plain})
    return unnamed.model_copy(update={"name": f"design-{unnamed.fingerprint()[:8]}"})


def _solve(draft: Draft, chooser: Chooser, count: Count, target: Target) -> None:
    """Give the free sizes their values, one module after the other."""
    alone = [module for module, free in zip(draft.modules, draft.free, strict=True) if free is None]
    left = target.parameters - sum(_counted(count, variant_of([module])) for module in alone)
    sized = [
        (module, free) for module, free in zip(draft.modules, draft.free, strict=True) if free is not None
    ]
    for index, (module, free) in enumerate(sized):
        wanted = left
        if index + 1 < len(sized):
            wanted = round(left * float(str(chooser.option(f"share[{len(sized) - index}]", target.shares))))
        left -= _fit(module, free, count, wanted)


def _fit(module: dict[str, Any], free: Free, count: Count, wanted: int) -> int:
    def size_at(value: int) -> int:
        free.put(value)
        return _counted(count, variant_of([module]))

    value, parameters = nearest(size_at, free.low, free.high, wanted)
    free.put(value)
    return parameters


def _counted(count: Count, variant: Variant) -> int:
    try:
        return count(variant)
    except HostError as error:
        raise InfeasibleError("host", str(error)) from None

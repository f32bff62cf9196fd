"""A design: what the walk drafted, at the size the budget asks for, as a variant that the spec accepts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ctxpeft.errors import HostError
from ctxpeft.search.budget import Target, nearest
from ctxpeft.search.order import settled
from ctxpeft.search.space.chooser import Chooser
from ctxpeft.search.space.nodes import Position
from ctxpeft.search.space.walk import Draft, Either, Free, InfeasibleError, walk
from ctxpeft.spec.base import compact
from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.explain import dotted
from ctxpeft.spec.guide import Facts
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.variant import Variant

Count = Callable[[Variant], int]


@dataclass(frozen=True)
class Design:
    """A variant with its size, its modules in the order of `settled`; `templates` are the space's names of them."""

    variant: Variant
    parameters: int
    templates: tuple[str, ...] = ()


def sample(
    positions: tuple[Position, ...],
    chooser: Chooser,
    count: Count,
    target: Target | None,
    guide: Facts | None = None,
) -> Design:
    """One design of the space; within the construction guide, if `guide` tells it what is known.

    Raises InfeasibleError with the reason.
    """
    draft = walk(positions, chooser, solve=target is not None, guide=guide)
    if target is not None:
        _solve(draft, chooser, count, target)
    variant = variant_of(draft.modules)
    parameters = _counted(count, variant)
    if target is not None and not target.meets(parameters):
        solved = [*draft.free, *(choice for module in draft.either for choice in module)]
        sizes = [f"{part.key} {part.holder[part.key]}" for part in solved if part is not None]
        nearest_size = f"at its nearest size ({', '.join(sizes)})" if sizes else "and no free size"
        raise InfeasibleError(
            "budget",
            f"{parameters:,} parameters {nearest_size}; the budget is {target.parameters:,} +- {target.tolerance:.1%}",
            "; ".join(variant_equations(variant)),
        )
    order = settled(variant.modules)
    if order != sorted(order):
        variant = variant_of([draft.modules[place] for place in order])
    return Design(variant, parameters, tuple(draft.templates[place] for place in order))


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
    """Give the free sizes and choices their values, one module after the other."""
    parts = list(zip(draft.modules, draft.free, draft.either, strict=True))
    alone = [module for module, free, either in parts if free is None and not either]
    left = target.parameters - sum(_counted(count, variant_of([module])) for module in alone)
    open_ones = [part for part in parts if part[1] is not None or part[2]]
    for index, (module, free, either) in enumerate(open_ones):
        wanted = left
        if index + 1 < len(open_ones):
            share = chooser.option(f"share[{len(open_ones) - index}]", target.shares)
            wanted = round(left * float(str(share)))
        within = target.tolerance * target.parameters
        left -= _fit_first(module, free, either, count, wanted, within)


def _fit_first(
    module: dict[str, Any], free: Free | None, either: list[Either], count: Count, wanted: int, within: float
) -> int:
    """Of all combinations of the choices, the first whose nearest size is near enough, else the nearest of all."""
    found: list[tuple[float, tuple[int, ...]]] = []
    refused: InfeasibleError | None = None
    for combination in itertools.product(*(range(len(choice.values)) for choice in either)):
        try:
            gap = abs(_fit_with(module, free, either, combination, count, wanted) - wanted)
        except InfeasibleError as error:
            refused = error
            continue
        found.append((gap, combination))
        if gap <= within:
            break
    if not found:
        assert refused is not None
        raise refused
    best = found[-1] if found[-1][0] <= within else min(found)
    return _fit_with(module, free, either, best[1], count, wanted)


def _fit_with(
    module: dict[str, Any],
    free: Free | None,
    either: list[Either],
    combination: tuple[int, ...],
    count: Count,
    wanted: int,
) -> int:
    for choice, index in zip(either, combination, strict=True):
        choice.put(index)
    return _counted(count, variant_of([module])) if free is None else _fit(module, free, count, wanted)


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
        reason = str(error).removeprefix(f"{variant.name}: ")  # so that equal reasons are counted together
        raise InfeasibleError("host", reason) from None

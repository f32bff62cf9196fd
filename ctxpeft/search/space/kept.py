"""Whether a drawn module keeps to the construction guide as well as its template can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from ctxpeft.search.space.nodes import Record
from ctxpeft.spec.guide import RULES, Facts, Rule
from ctxpeft.spec.module import ModuleSpec

DRAWS = 64
"""Modules drawn from a template to learn how few rules it can break."""

_fewest: dict[tuple[int, bool, Facts], tuple[Record, int]] = {}


def broken(data: dict[str, Any], facts: Facts) -> list[Rule]:
    """The rules, `must` or `should`, that a module breaks; none where the spec refuses the module."""
    try:
        module = ModuleSpec.model_validate(data)
    except ValidationError:
        return []
    return [rule for rule in RULES if rule.severity != "consider" and rule.broken(module, facts)]


def fewest(record: Record, solve: bool, facts: Facts, draw: Callable[[int], dict[str, Any] | None]) -> int:
    """How few rules a module of a template breaks, over `DRAWS` modules that `draw` makes; known the second time.

    Closing alternatives one by one cannot see that a later choice will leave a rule no way out, so a design is measured
    against what its template can do. Every template can do what some of its own designs do: no space is made
    infeasible.
    """
    found = _fewest.get((id(record), solve, facts))
    if found is None:
        modules = (data for data in map(draw, range(DRAWS)) if data is not None)
        least = min((len(broken(data, facts)) for data in modules), default=len(RULES))
        found = _fewest[id(record), solve, facts] = (
            record,
            least,
        )  # the record, so that its id stays its own
    return found[1]

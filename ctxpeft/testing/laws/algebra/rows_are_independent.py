"""The rows of a batch do not meet."""

from __future__ import annotations

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MODULES, Spec, assert_close


@algebra_law(
    equation="o(x_π) = o(x)_π and o(x)_b = o(x_b)",
    source="the algebra",
    sinks=True,
    past=True,
    module=MODULES,
)
def rows_are_independent(heads: Heads, module: Spec) -> None:
    """Permuting the rows of a batch permutes the outputs, and each row alone gives the same."""
    built = heads.module(module)
    together = heads.composed(built)
    names = ("query", "key", "value", "hidden", "unrotated", "visible")
    batch = heads.query.shape[0]
    for rows in (list(reversed(range(batch))), *([b] for b in range(batch))):
        chosen = heads.changed(**{name: getattr(heads, name)[rows] for name in names})
        assert_close(chosen.composed(built), together[rows])

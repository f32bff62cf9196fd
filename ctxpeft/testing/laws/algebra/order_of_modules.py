"""When the order of the list does not matter."""

from __future__ import annotations

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ADDED, INSIDE, Spec, assert_close


@algebra_law(
    equation="o(A, B) = o(B, A) for inside and outside add",
    source="the algebra: everything is read before anything is merged",
    sinks=True,
    past=True,
    first=(*INSIDE, *ADDED),
    second=(*INSIDE, *ADDED),
)
def order_of_modules(heads: Heads, first: Spec, second: Spec) -> None:
    """Modules inside, and modules added outside, may be listed in any order."""
    a, b = heads.module(first), heads.module(second, seed=1)
    assert_close(heads.composed(a, b), heads.composed(b, a))

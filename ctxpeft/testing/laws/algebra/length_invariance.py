"""Competition without dilution: what it is for."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks.compose import compose
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_close


@algebra_law(
    equation="ρ(K ∪ K, V ∪ V) = ρ(K, V); under `compete` ρ falls",
    source="new here",
    past=True,
    times=(2, 3, 5),
)
def length_invariance(heads: Heads, times: int) -> None:
    """Repeating every content key leaves the weight of a length-compensated prefix unchanged."""
    longer = heads.changed(
        key=heads.key.repeat(1, 1, times, 1),
        value=heads.value.repeat(1, 1, times, 1),
        visible=heads.visible.repeat(1, 1, times),
    )

    def merged(problem: Heads, merge: str) -> tuple[Tensor, Tensor]:
        module = problem.module({"placement": "inside", "merge": merge, "memory": SLOTS})
        output, kept = compose(problem.capture(), [(module, None)])
        assert kept is not None
        return output, 1 - kept

    (output, rho), (again, rho_longer) = (merged(p, "compete_length") for p in (heads, longer))
    assert_close(rho_longer, rho)
    assert_close(again, output)
    assert bool((merged(longer, "compete")[1] < merged(heads, "compete")[1]).all())

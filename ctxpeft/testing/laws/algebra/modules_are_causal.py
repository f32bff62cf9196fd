"""No module leaks the future."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MODULES, Spec, assert_close


@algebra_law(
    equation="∂o_i / ∂(q, x, k, v)_j = 0 for j > i",
    source="the algebra; a gate pooled over the sequence breaks it",
    masks=("causal", "padded", "right_padded", "window"),
    sinks=True,
    module=MODULES,
)
def modules_are_causal(heads: Heads, module: Spec) -> None:
    """No module looks at a later token: neither its memory, nor its gate, nor its question."""
    built = heads.module(module)
    before = heads.composed(built)
    for cut in range(1, heads.query.shape[2]):

        def later(x: Tensor, cut: int = cut) -> Tensor:
            changed = x.detach().clone()
            changed[:, :, cut:] += 1.0
            return changed

        other = heads.changed(
            **{name: later(getattr(heads, name)) for name in ("query", "key", "value", "hidden", "unrotated")}
        )
        assert_close(other.composed(built)[:, :, :cut], before[:, :, :cut])

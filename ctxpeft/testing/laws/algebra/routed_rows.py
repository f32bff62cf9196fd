"""One adapter a row."""

from __future__ import annotations

import torch

from ctxpeft.blocks.compose import compose
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MODULES, Spec, assert_close


@algebra_law(
    equation="o_b = merge(o_X, modules of row b)_b",
    source="the algebra",
    sinks=True,
    past=True,
    module=MODULES,
    other=MODULES,
)
def routed_rows(heads: Heads, module: Spec, other: Spec) -> None:
    """A batch whose rows go through different modules equals each module on its own rows."""
    first, second = heads.module(module), heads.module(other, seed=1)
    batch = heads.query.shape[0]
    mine = torch.arange(batch) % 2 == 0
    routed, _ = compose(heads.capture(), [(first, mine[:, None]), (second, ~mine[:, None])])
    assert_close(routed[mine], heads.composed(first)[mine])
    assert_close(routed[~mine], heads.composed(second)[~mine])
    nobody, _ = compose(heads.capture(), [(first, torch.zeros(batch, 1, dtype=torch.bool))])
    assert_close(nobody, heads.content()[0])

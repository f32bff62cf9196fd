"""Scope over heads."""

from __future__ import annotations

import torch

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU, MATRIX, SLOTS, Spec, assert_close

_PER_HEAD: Spec = {**SLOTS, "per": "query_head"}


@algebra_law(
    equation="o_h = o_X,h for h ∉ scope",
    source="the algebra",
    sinks=True,
    spec=(
        {"placement": "outside", "feature_map": ELU, "memory": MATRIX},
        {"placement": "inside", "memory": _PER_HEAD},
        {"placement": "inside", "memory": _PER_HEAD, "gate": {"kind": "scalar"}},
        {"placement": "outside", "memory": MATRIX, "feature_map": ELU, "gate": {"kind": "token"}},
        {"placement": "outside", "merge": "scale", "memory": {"kind": "none"}, "gate": {"kind": "scalar"}},
    ),
    bits=range(1, 2**6),
)
def heads_out_of_scope(heads: Heads, spec: Spec, bits: int) -> None:
    """A head scope gives parameters to its heads, as an unscoped module would, and leaves the others bit-identical."""
    count = heads.query.shape[1]
    chosen = tuple(h for h in range(count) if bits >> h & 1) or (bits % count,)
    module = heads.module({**spec, "scope": {"heads": list(chosen)}}, heads=chosen)
    everywhere = heads.module(spec)
    for name, parameter in module.named_parameters():
        parameter.data = dict(everywhere.named_parameters())[name].data[list(chosen)]
    part, whole, (o, _) = heads.composed(module), heads.composed(everywhere), heads.content()
    others = [h for h in range(count) if h not in chosen]
    assert_close(part[:, list(chosen)], whole[:, list(chosen)])
    assert torch.equal(part[:, others], o[:, others])

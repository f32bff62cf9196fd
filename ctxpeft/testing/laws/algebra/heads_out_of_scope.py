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
        {"placement": "inside", "memory": {**SLOTS, "parameterization": {"kind": "frozen_projection"}}},
        {"placement": "outside", "merge": "scale", "memory": {"kind": "none"}, "gate": {"kind": "scalar"}},
    ),
    which=(slice(1), slice(-1, None), slice(0, None, 2), slice(1, None, 2), slice(None)),
)
def heads_out_of_scope(heads: Heads, spec: Spec, which: slice) -> None:
    """A head scope gives parameters to its heads, as an unscoped module would, and leaves the others bit-identical."""
    count = heads.query.shape[1]
    chosen = tuple(range(count)[which]) or (0,)
    if spec["memory"].get("per") != "query_head" and spec["memory"]["kind"] == "slots":
        chosen = tuple(h for g in sorted({h // heads.repeat for h in chosen}) for h in _of_group(heads, g))
    module = heads.module({**spec, "scope": {"heads": list(chosen)}}, heads=chosen)
    everywhere = heads.module(spec)
    for name, parameter in module.named_parameters():
        whole_parameter = dict(everywhere.named_parameters())[name].data
        shared = whole_parameter.shape[0] != count or name.endswith("prompt")
        parameter.data = whole_parameter if shared else whole_parameter[list(chosen)]
    part, whole, (o, _) = heads.composed(module), heads.composed(everywhere), heads.content()
    others = [h for h in range(count) if h not in chosen]
    assert_close(part[:, list(chosen)], whole[:, list(chosen)])
    assert torch.equal(part[:, others], o[:, others])


def _of_group(heads: Heads, group: int) -> range:
    """The query heads of a kv head: slots of a kv head need the same number of heads from each."""
    return range(group * heads.repeat, (group + 1) * heads.repeat)

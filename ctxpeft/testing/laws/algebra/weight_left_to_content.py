"""What the merge says of the content's share."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks.compose import compose
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, Spec, assert_close, slots_of

_GATES: tuple[Spec, ...] = (
    {"kind": "none"},
    {"kind": "scalar", "activation": "tanh", "on": "weight"},
    {"kind": "scalar", "activation": "sigmoid", "on": "mass"},
)


@algebra_law(
    equation="1 - Σᵢ gᵢ ρᵢ, ρᵢ the share of module i in the one softmax",
    source="the algebra",
    past=True,
    first=_GATES,
    second=_GATES,
)
def weight_left_to_content(heads: Heads, first: Spec, second: Spec) -> None:
    """The weight that two inside modules leave to the content is one less their gated shares of the joint softmax."""
    modules = [
        heads.module({"placement": "inside", "memory": SLOTS, "gate": gate}, seed=i)
        for i, gate in enumerate((first, second))
    ]
    _, kept = compose(heads.capture(), [(module, None) for module in modules])
    assert kept is not None
    content = torch.logsumexp(heads.scores(), -1)
    masses, gates = [], []
    for module, gate in zip(modules, (first, second), strict=True):
        key = slots_of(module)[0].repeat_interleave(heads.repeat, 0)
        g = _value(module, gate)
        on_mass = gate.get("on") == "mass"
        mass = torch.logsumexp(heads.scaling * heads.query @ key.transpose(1, 2), -1)
        masses.append(mass + torch.log(g) if on_mass else mass)
        gates.append(torch.ones_like(g) if on_mass else g)
    shares = torch.softmax(torch.stack([content, *masses]), 0)[1:]
    taken = [g * share for g, share in zip(gates, shares, strict=True)]
    assert_close(kept, 1 - taken[0] - taken[1], 1e-11)


def _value(module: torch.nn.Module, gate: Spec) -> Tensor:
    """g (H, 1), or 1."""
    if gate["kind"] == "none":
        return torch.ones(1, 1, dtype=torch.float64)
    logit = dict(module.named_parameters())["gate.logit"][..., 0]
    return torch.tanh(logit) if gate["activation"] == "tanh" else torch.sigmoid(logit)

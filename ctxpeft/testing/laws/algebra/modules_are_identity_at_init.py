"""Identity at init."""

from __future__ import annotations

import torch

from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import IDENTICAL, Spec


@algebra_law(
    equation="θ = θ₀ ⇒ o = o_X",
    source="LLaMA-Adapter, arXiv:2303.16199; LoRA, arXiv:2106.09685",
    sinks=True,
    past=True,
    module=IDENTICAL,
)
def modules_are_identity_at_init(heads: Heads, module: Spec) -> None:
    """A module that claims identity at init changes no output, bit for bit, and still gets a gradient."""
    spec = ModuleSpec.model_validate(module)
    if not spec.identity_at_init():
        return
    built = heads.module(spec, moved=0.0)
    out = heads.composed(built)
    assert torch.equal(out, heads.content()[0])
    parameters = list(built.parameters())
    gradients = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    assert any(g is not None and bool(g.abs().sum() > 0) for g in gradients)

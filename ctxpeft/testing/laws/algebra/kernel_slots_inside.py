"""Slots that compete by a kernel."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.feature_maps import of_group
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU1, SLOTS, Spec, assert_equation, slots_of


@algebra_law(
    equation="o = (e^L o_X + Σⱼ wⱼ vⱼ) / (e^L + Σⱼ wⱼ), wⱼ = φ(q)ᵀφ(kⱼ) ≥ 0",
    source="Transformers are RNNs, arXiv:2006.16236; Based, arXiv:2402.18668; ReBased, arXiv:2402.10644",
    past=True,
    feature_map=(
        ELU1,
        {"kind": "taylor", "width": 2},
        {"kind": "rebased", "width": 3},
        {"kind": "film", "base": {"kind": "relu"}},
    ),
)
def kernel_slots_inside(heads: Heads, feature_map: Spec) -> None:
    """Kernel slots join the softmax by their kernel, under a positive map or a signed one of positive kernel."""
    memory = {**SLOTS, "score": "kernel"}
    module = heads.module(
        {"placement": "inside", "feature_map": feature_map, "phi_per": "kv_head", "memory": memory}
    )
    key, value = slots_of(module)
    declared, built = module.spec.feature_map, module.feature_map
    assert declared is not None
    assert built is not None

    def equation(head: naive.Head) -> Tensor:
        o, mass = naive.content_attention(head)
        g = head.kv
        parameters = of_group(built, g)
        phi_q, phi_k = (declared.naive(x, parameters) for x in (head.q, key[g]))
        return naive.kernel_slots(o, mass, phi_q, phi_k, value[g])

    assert_equation(heads, module, heads.per_head(equation))

"""Kernel slots are a matrix of a special form."""

from __future__ import annotations

from torch.nn import functional

from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ELU, ELU1, SLOTS, Spec, assert_close, slots_of, softplus_inverse

_MATRIX: Spec = {"kind": "matrix", "per": "kv_head"}


@algebra_law(
    equation="Σⱼ φ(q)ᵀφ(kⱼ) vⱼ = φ(q)ᵀM, Σⱼ φ(q)ᵀφ(kⱼ) = φ(q)ᵀz, M = Σⱼ φ(kⱼ)vⱼᵀ, z = Σⱼ φ(kⱼ)",
    source="Transformers are RNNs, arXiv:2006.16236; arXiv:2506.13674, eq. 5 to 6",
    place=(
        {"placement": "outside", "feature_map": ELU},
        {"placement": "outside", "feature_map": ELU1, "normalizer": "sum"},
        {"placement": "inside", "feature_map": ELU1},
    ),
)
def slots_collapse_into_a_matrix(heads: Heads, place: Spec) -> None:
    """Slots with a kernel equal a matrix M with normaliser z: outside, normalised, and inside."""
    slots = heads.module({**place, "memory": {**SLOTS, "score": "kernel"}})
    matrix = heads.module({**place, "memory": _MATRIX})
    key, value = slots_of(slots)
    phi = functional.elu(key) + (place["feature_map"] == ELU1)
    parameters = dict(matrix.named_parameters())
    parameters["memory.matrix"].data = phi.transpose(1, 2) @ value
    if "memory.zeta" in parameters:
        parameters["memory.zeta"].data = softplus_inverse(phi.sum(1))
    assert_close(heads.composed(slots), heads.composed(matrix), 1e-11)

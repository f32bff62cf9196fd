"""Random features towards the softmax prefix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctxpeft.blocks.feature_maps.favor_plus import FavorPlus
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law

FEATURES = (64, 128, 256, 512, 1024, 2048, 4096)
SLOPE, TOLERANCE = -0.5, 0.05


@algebra_law(
    equation="rms(Σⱼ φ(q)ᵀφ(kⱼ)vⱼ / Σⱼ φ(q)ᵀφ(kⱼ) - softmax(a qᵀK)V) ∝ m^(-1/2)",
    source="FAVOR+, arXiv:2009.14794",
    examples=3,
)
def favor_plus_converges(heads: Heads) -> None:
    """A prefix read through FAVOR+ converges to the softmax prefix as one over the root of the number of features."""
    slope = log_log_slope(FEATURES, errors(FEATURES, heads.seed))
    assert abs(slope - SLOPE) <= TOLERANCE, f"the error falls as m^{slope:.3f}"


def errors(features: Sequence[int], seed: int, draws: int = 48, width: int = 8) -> list[float]:
    """How far a prefix read through FAVOR+ is from the softmax prefix, for each number of features.

    Root mean square over `draws` independent W, 16 queries and all channels, for 12 slots. Queries and keys have norm
    0.7 d^(1/4): there the relative variance of one score, exp(|q + k|^2 / sqrt d) / m, is at most e^2 / m.
    """
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(n, width, dtype=torch.float64, generator=generator) for n in (16, 12, 12))
    q, k = (0.7 * width**0.25 * x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    exact = torch.softmax(q @ k.T / width**0.5, -1) @ v
    found = []
    for count in features:
        torch.manual_seed(seed + count)
        module = FavorPlus(width=count).build(width, draws).double()
        phi_q, phi_k = (_every_draw(module, x, draws) for x in (q, k))
        weight = phi_q @ phi_k.transpose(1, 2)
        found.append(float((weight @ v / weight.sum(-1, keepdim=True) - exact).square().mean().sqrt()))
    return found


def log_log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares slope of log y over log x."""
    a, b = (torch.tensor(t, dtype=torch.float64).log() for t in (x, y))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a * a).sum())


def _every_draw(module: torch.nn.Module, x: Tensor, draws: int) -> Tensor:
    features: Tensor = module(x.expand(draws, *x.shape))
    return features

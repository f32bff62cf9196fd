"""What each feature map is for, as mathematics: kernels it estimates, sums it keeps, identities it satisfies."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctxpeft.blocks.feature_maps.dpfp import Dpfp
from ctxpeft.blocks.feature_maps.exp import Exp
from ctxpeft.blocks.feature_maps.favor_plus import FavorPlus, orthogonal_gaussian
from ctxpeft.blocks.feature_maps.film import Film
from ctxpeft.blocks.feature_maps.hadamard import Hadamard
from ctxpeft.blocks.feature_maps.outer import Outer
from ctxpeft.blocks.feature_maps.random_fourier import RandomFourier
from ctxpeft.blocks.feature_maps.rbf import Rbf
from ctxpeft.blocks.feature_maps.rebased import Rebased
from ctxpeft.blocks.feature_maps.softmax import Softmax
from ctxpeft.blocks.feature_maps.taylor import Taylor
from ctxpeft.blocks.feature_maps.top_k import TopK
from ctxpeft.spec.blocks import FeatureMapSpec
from ctxpeft.spec.registry import kinds

few = settings(max_examples=25)
widths, seeds = st.integers(1, 9), st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def phi(spec: FeatureMapSpec, *inputs: Tensor, seed: int = 0) -> list[Tensor]:
    """One map, drawn with a seed, of several inputs (N, d)."""
    torch.manual_seed(seed)
    module = spec.build(inputs[0].shape[-1], 1).double()
    return [module(x[None])[0].detach() for x in inputs]


@few
@given(widths, seeds)
def test_taylor_is_the_exponential_to_second_order(width: int, seed: int) -> None:
    """phi(q).phi(k) = 1 + t + t^2/2 with t = q.k / sqrt d."""
    q, k = normal(seed, 2, 5, width)
    phi_q, phi_k = phi(Taylor(width=None), q, k)
    t = q @ k.T / width**0.5
    assert torch.allclose(phi_q @ phi_k.T, 1 + t + t**2 / 2, rtol=1e-12, atol=1e-12)


@few
@given(widths, st.integers(1, 6), seeds)
def test_taylor_projects_first(width: int, r: int, seed: int) -> None:
    """The same with (q W).(k W) / sqrt r."""
    q, k = normal(seed, 2, 5, width)
    torch.manual_seed(seed)
    module = Taylor(width=r).build(width, 1).double()
    t = (q @ module.weight[0]) @ (k @ module.weight[0]).T / r**0.5
    assert torch.allclose(module(q[None])[0] @ module(k[None])[0].T, 1 + t + t**2 / 2, rtol=1e-12, atol=1e-12)


@few
@given(st.integers(2, 9), seeds)
def test_rebased_is_a_squared_product(width: int, seed: int) -> None:
    """phi(q).phi(k) = (y.z)^2 / d of the normed q and k; it vanishes where they are orthogonal, and taylor's cannot."""
    q, k = normal(seed, 2, 5, width)
    phi_q, phi_k = phi(Rebased(width=None), q, k)
    y, z = (torch.nn.functional.layer_norm(x, (width,), eps=1e-5) for x in (q, k))
    assert torch.allclose(phi_q @ phi_k.T, (y @ z.T) ** 2 / width, rtol=1e-10, atol=1e-10)


@few
@given(widths, st.integers(1, 5), seeds)
def test_outer_and_hadamard_are_quadratic_forms(width: int, r: int, seed: int) -> None:
    """Every feature is x^T A x for a fixed A, so phi(s x) = s^2 phi(x) and phi(x) is even."""
    x = normal(seed, 4, width)
    for spec in (Outer(width=r), Hadamard(width=r)):
        one, scaled, turned = phi(spec, x, 3 * x, -x, seed=seed)
        assert torch.allclose(scaled, 9 * one, rtol=1e-12, atol=1e-12)
        assert torch.allclose(turned, one, rtol=1e-12, atol=1e-12)


@few
@given(widths, st.integers(1, 4), seeds)
def test_dpfp_is_the_papers(width: int, nu: int, seed: int) -> None:
    """phi_(2d(j-1)+i) = r_i r_(i+j), r = [relu(x), relu(-x)], indices modulo 2d, arXiv:2102.11174."""
    x = normal(seed, width)
    (found,) = phi(Dpfp(nu=nu), x[None])
    r = [max(float(v), 0.0) for v in x] + [max(-float(v), 0.0) for v in x]
    for j in range(1, nu + 1):
        for i in range(2 * width):
            assert float(found[0, 2 * width * (j - 1) + i]) == pytest.approx(r[i] * r[(i + j) % (2 * width)])


@few
@given(widths, seeds, st.floats(-30, 30))
def test_softmax_and_exp(width: int, seed: int, shift: float) -> None:
    """Softmax sums to 1, with its negative to 2; exp is softmax over its own largest entry; neither sees a shift."""
    x = 5 * normal(seed, 4, width)
    (one, moved), (both,) = phi(Softmax(), x, x + shift), phi(Softmax(both=True), x)
    ones = torch.ones(4, dtype=torch.float64)
    assert torch.allclose(one.sum(-1), ones)
    assert torch.allclose(both.sum(-1), 2 * ones)
    assert torch.allclose(one, moved, rtol=1e-9, atol=1e-12)
    largest, same = phi(Exp(), x, x + shift)
    assert torch.equal(largest.amax(-1), ones)
    assert torch.allclose(largest, one / one.amax(-1, keepdim=True), rtol=1e-12, atol=1e-12)
    assert torch.allclose(largest, same, rtol=1e-9, atol=1e-12)


@few
@given(widths, st.integers(1, 9), seeds)
def test_rbf_prefers_the_nearest_centroid(width: int, count: int, seed: int) -> None:
    """Weights sum to 1 and are ordered as the distances are."""
    x = normal(seed, 4, width)
    torch.manual_seed(seed)
    module = Rbf(width=count).build(width, 1).double()
    weight = module(x[None])[0]
    distance = torch.cdist(x, module.centroid[0])
    assert torch.allclose(weight.sum(-1), torch.ones(4, dtype=torch.float64))
    assert torch.equal(weight.argsort(-1, descending=True), distance.argsort(-1))


@few
@given(widths, st.integers(1, 12), seeds)
def test_top_k_keeps_the_largest(width: int, k: int, seed: int) -> None:
    """min(k, d) entries are kept as they are, none of them below one that is dropped."""
    x = normal(seed, 4, width)
    (found,) = phi(TopK(k=k), x)
    kept = found != 0
    assert torch.equal(kept.sum(-1), torch.full((4,), min(k, width)))
    assert torch.equal(found[kept], x[kept])
    lowest = x.masked_fill(~kept, math.inf).amin(-1)
    assert bool((x.masked_fill(kept, -math.inf).amax(-1) <= lowest).all())


@pytest.mark.parametrize("kind", sorted(set(kinds("feature_map")) - {"film"}))
def test_film_starts_as_its_base(kind: str) -> None:
    """With a code of 1 it is the base, bit for bit."""
    x = normal(0, 4, 6)
    base = kinds("feature_map")[kind]()
    (plain,), (coded,) = phi(base, x), phi(Film(base=base), x)
    assert torch.equal(plain, coded)


@few
@given(widths, st.integers(1, 20), seeds)
def test_random_rows_are_orthogonal_in_blocks(width: int, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    rows = orthogonal_gaussian(2, count, width).double()
    for start in range(0, count, width):
        block = rows[:, start : start + width]
        gram = block @ block.transpose(-2, -1)
        assert torch.allclose(gram, torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1)), atol=1e-4)


def test_random_rows_are_gaussian() -> None:
    """Over many draws the entries of a row have mean 0, variance 1, fourth moment 3, and no correlation.

    Each bound is 5 standard errors of 20,000 independent rows (the variance of x^4 is 96).
    """
    torch.manual_seed(0)
    rows = orthogonal_gaussian(20_000, 3, 3)[:, 2]
    error = 5 * 20_000**-0.5
    assert float(rows.mean(0).abs().max()) < error
    assert torch.allclose(rows.T @ rows / len(rows), torch.eye(3), atol=2**0.5 * error)
    assert torch.allclose((rows**4).mean(0), torch.full((3,), 3.0), atol=96**0.5 * error)


@settings(max_examples=5)
@given(seeds)
def test_favor_plus_is_unbiased(seed: int) -> None:
    """The mean of phi(q).phi(k) over 4,000 independent draws of W is exp(q.k / sqrt d) within 5 standard errors."""
    q, k = 0.7 * normal(seed, 2, 4, 6)
    torch.manual_seed(seed)
    draws = 4_000
    module = FavorPlus(width=12).build(6, draws).double()
    phi_q, phi_k = (module(x.expand(draws, 4, 6)) for x in (q, k))
    estimate = (phi_q * phi_k).sum(-1)
    error = estimate.std(0) / draws**0.5
    assert bool(((estimate.mean(0) - torch.exp((q * k).sum(-1) / 6**0.5)).abs() < 5 * error).all())


@settings(max_examples=5)
@given(seeds, st.floats(0.5, 2.0))
def test_random_fourier_estimates_the_gaussian_kernel(seed: int, bandwidth: float) -> None:
    """phi(q).phi(k) is exp(-|q - k|^2 / (2 s^2 d)) within 5 / sqrt m for 25 pairs.

    Each of the m terms is within [-2, 2], so Hoeffding gives one pair a chance of 2 exp(-25/8) to miss 5 / sqrt m at
    worst; the variance, at most 3/2, makes it 4 standard deviations or more.
    """
    q, k = normal(seed, 2, 5, 6)
    spec = RandomFourier(width=20_000, bandwidth=bandwidth)
    phi_q, phi_k = phi(spec, q, k, seed=seed)
    kernel = torch.exp(-(torch.cdist(q, k) ** 2) / (2 * bandwidth**2 * 6))
    assert float((phi_q @ phi_k.T - kernel).abs().max()) < 5 / spec.width**0.5

"""What competes with the content, merged by kernels that know the whole, is what the general merge makes of it."""

import itertools

import pytest
import torch

from ctxpeft.blocks.attention import Question, joint
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Problem
from ctxpeft.testing.laws.problems import ADDED, ELU1, INSIDE, MATRIX, SLOTS

COMPETING = (
    *(spec for spec in INSIDE if spec.get("gate", {}).get("on") != "mass" and "gate" not in spec),
    {"placement": "inside", "memory": {**SLOTS, "frozen": 1}},
    {
        "placement": "inside",
        "memory": SLOTS,
        "gate": {"kind": "scalar", "activation": "sigmoid", "on": "mass"},
    },
    {"placement": "inside", "merge": "compete_length", "length_bias": -1.0, "memory": SLOTS},
    {"placement": "inside", "feature_map": ELU1, "memory": MATRIX},
)
BESIDE = [spec for spec in ADDED if spec.get("gate", {}).get("source") not in ("output", "log_mass")][:3]


@pytest.mark.parametrize(
    "problem",
    [
        Problem(seed=0, batch=2, kv_heads=2, repeat=2, tokens=4, width=3, value_width=3, mask="padded"),
        Problem(seed=1, batch=1, kv_heads=1, repeat=3, tokens=1, width=5, value_width=5, past=4),
        Problem(seed=2, batch=3, kv_heads=3, repeat=1, tokens=5, width=2, value_width=2, mask="window"),
    ],
)
@pytest.mark.parametrize("pair", itertools.combinations_with_replacement(range(len(COMPETING)), 2))
def test_two_ways_are_one_function(problem, pair):
    """Any two that compete and something outside: values, and gradients of every input and parameter."""
    heads = problem.heads()
    specs = [*(COMPETING[i] for i in pair), BESIDE[sum(pair) % len(BESIDE)]]
    modules = [heads.module(spec, seed=i) for i, spec in enumerate(specs)]
    joined = heads.composed_jointly(*modules)
    assert joined is not None
    inputs = heads.inputs() | {"hidden": heads.hidden, "unrotated": heads.unrotated}
    for i, module in enumerate(modules):
        inputs |= {f"{i}.{key}": p for key, p in module.named_parameters()}
    assert_same_with_gradients(joined, heads.composed(*modules), inputs)


@pytest.mark.parametrize("gate", ["output", "log_mass"])
def test_who_looks_at_the_content_goes_the_general_way(gate):
    heads = Problem(batch=1, tokens=2, width=3, value_width=3).heads()
    looks = {"placement": "outside", "memory": {"kind": "vector"}, "gate": {"kind": "token", "source": gate}}
    inside = heads.module({"placement": "inside", "memory": SLOTS})
    assert heads.composed_jointly(inside) is not None
    assert heads.composed_jointly(inside, heads.module(looks)) is None
    weighed = {"placement": "inside", "memory": SLOTS, "gate": {"kind": "scalar"}}
    assert heads.composed_jointly(heads.module(weighed)) is None


@pytest.mark.parametrize("mass", [True, False])
def test_queries_that_see_no_content(mass):
    """They read what competes alone; where that has no mass either, nothing is divided by zero."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    blind = torch.tensor([[[True, False, True]]])
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.float64).masked_fill(blind[0, 0, :, None], -torch.inf)
    n = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    m = torch.full((1, 2, 3), float(mass), dtype=torch.float64, requires_grad=True)
    o = joint(Question(q, k, v, mask, blind, False, 0.5), None, [(n, m, torch.zeros_like(m))])
    expected = n[:, :, 0] if mass else n[:, :, 0] + torch.zeros_like(n[:, :, 0])
    assert torch.allclose(o[:, :, 0], expected)
    o.sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in (q, k, v, n, m))
    assert bool((q.grad[:, :, [0, 2]] == 0).all())
    assert bool((q.grad[:, :, 1] != 0).any())


def test_halves_merge_in_single_precision():
    """Slots of a bfloat16 host stay fp32: their gradients have the precision of their read."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    slots = [torch.randn(2, 3, 8, requires_grad=True) for _ in range(2)]
    o = joint(Question(q, k, v, None, None, True, 0.3), tuple(slots), [])
    assert o.dtype == torch.bfloat16
    weights = torch.randn(o.shape)
    (o.float() * weights).sum().backward()
    wide = [t.detach().double().requires_grad_() for t in (q, k, v, *slots)]
    score = 0.3 * torch.cat([wide[3][None], wide[1]], 2) @ wide[0].transpose(2, 3)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    score = score.transpose(2, 3)
    score = torch.cat([score[..., :3], score[..., 3:].masked_fill(hidden, -torch.inf)], -1)
    naive = torch.softmax(score, -1) @ torch.cat([wide[4][None], wide[2]], 2)
    assert torch.allclose(o.double(), naive, atol=2e-2)
    (naive * weights).sum().backward()
    for mine, theirs in zip(slots, wide[3:], strict=True):
        assert mine.grad.dtype == torch.float32
        assert torch.allclose(mine.grad.double(), theirs.grad, atol=2e-2 * float(theirs.grad.abs().max()))

"""What competes with the content, merged by kernels that know the whole, is what the general merge makes of it."""

import itertools
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from ctxpeft.blocks import attention, one_list
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
@pytest.mark.parametrize("one", [True, False])
def test_two_ways_are_one_function(problem, pair, one, monkeypatch):
    """Any two that compete and something outside: values, and gradients of every input and parameter; the slots are one
    list with the content where that may be, or a list of their own."""
    if not one:
        monkeypatch.setattr(attention, "pays", lambda *_: False)
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


MASKS = ("none", "causal", "padded", "lowest", "blind")


def _hidden(mask, batch, tokens, keys):
    """Which keys a query does not see, and what a kernel is told about it."""
    hidden = torch.zeros(batch, 1, tokens, keys, dtype=torch.bool)
    if mask != "none":
        hidden = hidden | torch.ones(tokens, keys, dtype=torch.bool).triu(1 + keys - tokens)
    if mask in ("padded", "lowest"):
        hidden[-1, ..., : keys // 2] = True
    if mask == "blind":
        hidden[-1, :, 0] = True
    if mask in ("none", "causal"):
        return hidden, None, None
    low = torch.finfo(torch.float64).min if mask == "lowest" else -torch.inf
    return hidden, torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, low), hidden.all(-1)


@given(
    mask=st.sampled_from(MASKS),
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    repeat=st.integers(1, 3),
    tokens=st.integers(1, 6),
    past=st.integers(0, 3),
    count=st.integers(1, 5),
    trained=st.tuples(*[st.booleans()] * 5).filter(any),
    one=st.booleans(),
)
def test_slots_are_a_concatenation(mask, batch, kv_heads, repeat, tokens, past, count, trained, one):
    """Whichever of q, k, v and the slots are trained, and whether they become one list or stay two."""
    torch.manual_seed(0)
    keys = tokens if mask == "causal" else tokens + past
    hidden, additive, blind = _hidden(mask, batch, tokens, keys)
    shapes = [(batch, kv_heads * repeat, tokens), *[(batch, kv_heads, keys)] * 2, *[(kv_heads, count)] * 2]
    tensors = [torch.randn(*shape, 4, dtype=torch.float64) for shape in shapes]
    for tensor, wanted in zip(tensors, trained, strict=True):
        tensor.requires_grad_(wanted)
    q, k, v, slot_k, slot_v = tensors
    asked = Question(q, k, v, additive, blind, mask == "causal", 0.4)
    with patch.object(attention, "laid", wraps=one_list.laid) as laid:
        with patch.object(attention, "pays", one_list.pays if one else lambda *_: False):
            o = joint(asked, (slot_k, slot_v), [])
            with torch.no_grad():
                alone = joint(asked, (slot_k, slot_v), [])
        served = one and tokens > 1 and 1 < keys <= 2 * tokens
        assert tokens == 1 or laid.call_count == 2 * served
    assert o.shape == q.shape
    assert torch.equal(alone, o.detach())  # values do not depend on what is trained
    every = [
        torch.cat([s.expand(batch, -1, -1, -1), c], 2).repeat_interleave(repeat, 1)
        for s, c in ((slot_k, k), (slot_v, v))
    ]
    unseen = torch.cat([hidden.new_zeros(batch, 1, tokens, count), hidden], 3)
    score = (0.4 * q @ every[0].transpose(2, 3)).masked_fill(unseen, -torch.inf)
    naive = torch.softmax(score, -1) @ every[1]
    torch.testing.assert_close(o, naive, rtol=1e-10, atol=1e-10)
    weights, wanted = torch.randn(o.shape, dtype=o.dtype), [t for t in tensors if t.requires_grad]
    found = torch.autograd.grad((o * weights).sum(), wanted)
    for mine, theirs in zip(found, torch.autograd.grad((naive * weights).sum(), wanted), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("tokens", "keys", "count", "dtype", "groups"),
    [
        (one_list.BLOCK, one_list.BLOCK, 1, torch.float32, 2),
        (4, 4, one_list.BLOCK, torch.float32, 2),
        (4, 4, 3, torch.bfloat16, 2),
        (4, 4, 3, torch.float32, 1),
        (4, 9, 3, torch.float32, 2),
        (1, 1, 3, torch.float32, 2),
    ],
)
def test_long_lists_few_queries_other_precision_and_shared_slots_stay_two(tokens, keys, count, dtype, groups):
    q, k = torch.zeros(1, 4, tokens, 8, dtype=dtype), torch.zeros(1, 2, keys, 8, dtype=dtype)
    assert not one_list.pays(q, k, torch.zeros(groups, count, 8))
    served = torch.zeros(1, 4, 4, 8), torch.zeros(1, 2, 8, 8), torch.zeros(2, 3, 8)
    assert one_list.pays(*served)
    with patch.object(torch.compiler, "is_compiling", lambda: True):
        assert not one_list.pays(*served)
    with FakeTensorMode() as mode:
        assert not one_list.pays(*map(mode.from_tensor, served))


@pytest.mark.parametrize("mask", MASKS)
def test_slots_and_what_else_competes(mask):
    """Also where a query sees nothing of the content: one list or two."""
    torch.manual_seed(0)
    _, additive, blind = _hidden(mask, 2, 4, 4)
    shapes = [(2, 4, 4), (2, 2, 4), (2, 2, 4), (2, 3), (2, 3), (2, 4, 4)]
    tensors = [torch.randn(*shape, 5, dtype=torch.float64, requires_grad=True) for shape in shapes]
    masses = [torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    q, k, v, slot_k, slot_v, n = tensors
    weights = torch.randn(q.shape, dtype=q.dtype)
    found = []
    for pays in (one_list.pays, lambda *_: False):
        with patch.object(attention, "pays", pays):
            asked = Question(q, k, v, additive, blind, mask == "causal", 0.4)
            o = joint(asked, (slot_k, slot_v), [(n, masses[0], masses[1])])
        every = [*tensors, *masses]
        found.append((o, *torch.autograd.grad((o * weights).sum(), every, retain_graph=True)))
        for chosen, gradient in zip(every, found[-1][1:], strict=True):
            for tensor in every:
                tensor.requires_grad_(tensor is chosen)
            alone = (joint(asked, (slot_k, slot_v), [(n, masses[0], masses[1])]) * weights).sum()
            torch.testing.assert_close(*torch.autograd.grad(alone, chosen), gradient, rtol=1e-12, atol=1e-12)
        for tensor in every:
            tensor.requires_grad_(True)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_mask_is_made_where_it_is_used():
    """Not on torch's default device."""
    q, k, v = (torch.randn(1, 2, 13, 4) for _ in range(3))
    slots = tuple(torch.randn(2, 3, 4) for _ in range(2))
    with torch.no_grad():
        with torch.device("meta"):
            found = joint(Question(q, k, v, None, None, True, 0.5), slots, [])
        with patch.object(attention, "pays", lambda *_: False):
            expected = joint(Question(q, k, v, None, None, True, 0.5), slots, [])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(2, 1, 5, 1), (1, 1, 1, 1), (1, 1, 1, 5), (2, 4, 5, 5)])
def test_masks_that_broadcast(shape):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 4) for heads in (4, 2, 2))
    slots, mask = tuple(torch.randn(2, 3, 4) for _ in range(2)), torch.randn(shape)
    found = []
    with torch.no_grad():
        for pays in (one_list.pays, lambda *_: False):
            with patch.object(attention, "pays", pays):
                found.append(joint(Question(q, k, v, mask, None, False, 0.5), slots, []))
    torch.testing.assert_close(*found)


def test_a_mask_made_without_gradients_serves_training():
    """Kept masks are no inference tensors."""
    q, k, v = (torch.randn(1, 2, 11, 4, requires_grad=True) for _ in range(3))
    slots = tuple(torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    with torch.inference_mode():
        first = joint(Question(q, k, v, None, None, True, 0.5), slots, [])
    second = joint(Question(q, k, v, None, None, True, 0.5), slots, [])
    assert torch.equal(first, second)
    second.sum().backward()
    assert q.grad is not None

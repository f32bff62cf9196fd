"""Scores, gates and parameterizations of slots equal their equations, values and every gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxpeft.blocks import naive
from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.compare import assert_same_with_gradients

from .test_equations import SLOTS, check, few, problems, slots_of

PARAMETERIZATIONS = {
    "low_rank": {"kind": "low_rank", "rank": 2},
    "shared_kv": {"kind": "shared_kv", "embedding": 4},
}


@few
@given(problems(), st.sampled_from(["kv_head", "query_head", "layer"]))
def test_norga_is_one_softmax_with_a_nonlinear_score(heads, per):
    """NoRGa, arXiv:2405.14124: s + alpha tanh(tau s) for the slots."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "score": "norga", "per": per}})
    key, value = slots_of(module)
    parameters = dict(module.named_parameters())
    groups = heads.shape().group_of_heads(per)
    expected = heads.per_head(
        lambda q, k, v, visible, a, h: naive.norga_attention(
            q,
            k,
            v,
            visible,
            a,
            key[groups[h]],
            value[groups[h]],
            parameters["memory.alpha"],
            parameters["memory.tau"],
        )
    )
    check(heads, module, expected)


@few
@given(problems())
def test_gated_slots_are_scaled_by_each_query_token(heads):
    """APT, arXiv:2305.15212: keys and values times lambda sigmoid(W x + c)."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "gated": True}})
    key, value = slots_of(module)
    p = dict(module.named_parameters())
    W, c, scale = (p[f"memory.gates.{name}"] for name in ("weight", "bias", "scale"))
    rows = []
    for b in range(len(heads.query)):
        gates = scale * torch.sigmoid(heads.hidden[b, 0] @ W.T + c)
        rows.append(
            torch.stack(
                [
                    naive.adaptive_prefix(
                        heads.query[b, h],
                        heads.key[b, h // heads.repeat],
                        heads.value[b, h // heads.repeat],
                        heads.visible[b],
                        heads.scaling,
                        key[h // heads.repeat],
                        value[h // heads.repeat],
                        gates,
                    )
                    for h in range(heads.query.shape[1])
                ]
            )
        )
    check(heads, module, torch.stack(rows), hidden=heads.hidden)


@few
@given(problems())
def test_gates_start_at_one(heads):
    """A fresh gated prefix is the prefix, bit for bit."""
    gated = {"placement": "inside", "memory": {**SLOTS, "gated": True}}
    plain = {"placement": "inside", "memory": SLOTS}
    outputs = []
    for spec in (gated, plain):
        torch.manual_seed(0)
        outputs.append(heads.composed(_fresh(heads, spec)))
    assert torch.equal(*outputs)


def _fresh(heads, spec):
    from ctxpeft.blocks.context_module import ContextModule

    return ContextModule(ModuleSpec.model_validate(spec), heads.shape())


@pytest.mark.parametrize("kind", sorted(PARAMETERIZATIONS))
@few
@given(problems())
def test_parameterizations_equal_their_equations(kind, heads):
    spec = {"placement": "inside", "memory": {**SLOTS, "parameterization": PARAMETERIZATIONS[kind]}}
    module = heads.module(spec)
    slots = module.memory.slots
    parameters = dict(slots.named_parameters())
    groups = heads.shape().groups("kv_head")
    found = slots(heads.capture())
    pairs = [module.spec.memory.parameterization.naive(parameters, g) for g in range(groups)]
    expected = [torch.stack(part) for part in zip(*pairs, strict=True)]
    for fast, slow in zip(found, expected, strict=True):
        assert_same_with_gradients(fast, slow, parameters)
    deployed = found[0].numel() + found[1].numel()
    assert module.memory.deployed_parameters() == deployed


@few
@given(problems(), st.integers(1, 2))
def test_frozen_slots_are_slots_that_get_no_gradient(heads, frozen):
    """Frozen slots come before the others, take part in the softmax and are no parameters."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "frozen": frozen}})
    key, value = module.memory.slots(heads.capture())
    assert key.shape[1] == 3 + frozen
    expected = heads.per_head(
        lambda q, k, v, visible, a, h: naive.prefix_attention(
            q, k, v, visible, a, key[h // heads.repeat], value[h // heads.repeat]
        )
    )
    check(heads, module, expected)
    parameters = dict(module.named_parameters())
    assert {p.shape[1] for p in parameters.values()} == {3}
    assert {k for k in module.state_dict() if k not in parameters} == {
        "memory.slots.key",
        "memory.slots.value",
    }


def test_nonlinear_prompts_start_as_the_prompts():
    """arXiv:2502.03029: E + MLP(E) with a last layer of zeros; every weight of the MLP can still learn."""
    from ctxpeft.testing.heads import Heads

    heads = Heads.random(0, 2, kv_heads=2, repeat=2, tokens=4, width=3, value_width=5, mask="causal")
    W_K, W_V = torch.randn(2, 5, 3).double(), torch.randn(2, 5, 5).double()

    def capture() -> Capture:
        found = heads.capture()
        found.project_kv = lambda x: (x @ W_K, x @ W_V)
        return found

    outputs = {}
    for hidden in (None, 4):
        torch.manual_seed(0)
        module = _fresh(
            heads,
            {
                "placement": "outside",
                "memory": {**SLOTS, "parameterization": {"kind": "frozen_projection", "hidden": hidden}},
            },
        )
        outputs[hidden] = module.read(capture())[0].n
    assert torch.equal(outputs[None], outputs[4])
    outputs[4].square().sum().backward()
    last = module.memory.slots.mlp[2]
    assert all(bool(p.grad.abs().sum() > 0) for p in (last.weight, last.bias, module.memory.slots.prompt))

"""Hooks stand only where modules need them; passes that are computed again, parts that are called by themselves, copies
and adapters that come and go find those they need."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch

import ctxpeft
from ctxpeft.testing.tiny import TinyTokenizer, perturb, tiny_model

VARIANTS = [
    "prefix-tuning",  # asks for nothing but the call of the interface
    "prefix-tuning-plus",
    "prefix-tuning-plus-unrotated",  # q before RoPE
    "llama-adapter",  # the host's projections
    "prompt-tuning",
    "parallel-adapter-ffn",
    "reft",
    "unipelt",  # gates that look at x
]
IDS = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(4))


def adapted(variant, family="llama", name="default"):
    model = tiny_model(family)
    handle = ctxpeft.attach(model, variant, name=name, seed=0, tokenizer=TinyTokenizer())
    perturb(handle)
    return model, handle


def gradients(handle):
    found = [p.grad.clone() for p in handle.parameters()]
    for parameter in handle.parameters():
        parameter.grad = None
    return found


def hooks(model):
    return {
        name: (len(module._forward_pre_hooks), len(module._forward_hooks))
        for name, module in model.named_modules()
        if module._forward_pre_hooks or module._forward_hooks
    }


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_computed_again_has_the_plan_of_its_pass(variant, reentrant, family):
    """Checkpointing is switched on after attaching; the adapter is off, or another is on, in the backward pass."""
    if reentrant and variant == "prompt-tuning":
        pytest.skip("refused: tests/hosts/test_prompt.py")
    model, handle = adapted(variant, family)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.enable_input_require_grads()
    model(IDS, labels=IDS).loss.backward()
    plain = gradients(handle)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    loss = model(IDS, labels=IDS).loss
    with handle.disabled():
        loss.backward()
    for one, other in zip(gradients(handle), plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    with handle.disabled():
        loss = model(IDS, labels=IDS).loss
    loss.backward()  # the adapter is on again
    assert all(p.grad is None for p in handle.parameters())
    model.gradient_checkpointing_disable()
    model(IDS, labels=IDS).loss.backward()
    for one, other in zip(gradients(handle), plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("prompt-tuning", "reft")])
def test_the_part_that_holds_the_layers_can_be_called_by_itself(variant, checkpointing):
    """Where a variant does not ask which tokens are prompt."""
    model, handle = adapted(variant)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    whole = model(IDS, output_hidden_states=True).hidden_states[-1]
    whole.square().mean().backward()
    expected = gradients(handle)
    alone = model.model(IDS).last_hidden_state
    with handle.disabled():
        alone.square().mean().backward()
    assert torch.equal(alone, whole)
    for one, other in zip(gradients(handle), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_copy_has_hooks_of_its_own(variant, copier):
    model, handle = adapted(variant)
    model.train()
    out = model(IDS).logits
    twin = copier(model)
    assert hooks(twin) == hooks(model)
    handle.detach()
    assert hooks(model) == {}
    assert torch.equal(twin(IDS).logits, out)
    assert not torch.equal(model(IDS).logits, out)
    other = ctxpeft.attach(twin, "prefix-tuning-plus", name="other", seed=0)
    twin.gradient_checkpointing_enable({"use_reentrant": False})
    twin(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in other.parameters())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_adapters_leave_in_any_order(order):
    """Each takes the hooks that it alone needed along; with the last one all are gone."""
    model = tiny_model()
    base = model(IDS).logits
    names = ("prefix-tuning", "unipelt", "reft")
    handles = [ctxpeft.attach(model, v, name=v, seed=0) for v in names]
    for handle in handles:
        perturb(handle)
    for position in order:
        handles[position].detach()
        remaining = [v for i, v in enumerate(names) if i not in order[: order.index(position) + 1]]
        alone = tiny_model()
        for name in remaining:
            perturb(ctxpeft.attach(alone, name, name=name, seed=0))
        assert hooks(model) == hooks(alone)
        assert torch.equal(model(IDS).logits, alone(IDS).logits)
    assert hooks(model) == {}
    assert torch.equal(model(IDS).logits, base)


def test_slots_of_the_softmax_need_one_hook_a_layer():
    """What costs a token time in Python: the check that the attention called the interface, and no more."""
    model, _ = adapted("prefix-tuning")
    model(IDS)
    inside = {name: count for name, count in hooks(model).items() if ".layers." in f".{name}"}
    assert inside == {f"model.layers.{i}.self_attn": (0, 1) for i in range(2)}

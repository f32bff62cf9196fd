"""Keys and values that an MLP or the host's projections make are made once while a cache grows, and again as soon as
anything that makes them is another; what is said is what it would be if they were made for every token."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import DynamicCache, StaticCache

import ctxpeft
from ctxpeft.blocks.kept_pairs import KeptFrom, KeptPairs
from ctxpeft.blocks.memory.slots import SlotMemory
from ctxpeft.testing.tiny import TinyTokenizer, perturb, tiny_model
from tests.hosts.adapted import Scaled, adapted

IDS = torch.randint(3, 61, (2, 6), generator=torch.Generator().manual_seed(2))
PROJECTED = {"kind": "frozen_projection"}
MADE: list[dict[str, Any]] = [
    PROJECTED,
    {"kind": "frozen_projection", "hidden": 4},
    {"kind": "mlp", "embedding": 4, "hidden": 8},
    {"kind": "low_rank", "rank": 2},
    {"kind": "shared_kv"},
]


def slots(parameterization: dict[str, Any], placement: str = "outside", **more: Any) -> dict[str, Any]:
    memory = {"kind": "slots", "count": 3, "parameterization": parameterization, **more}
    gate = {"gate": {"kind": "scalar", "activation": "tanh"}} if placement == "outside" else {}
    return {"placement": placement, "memory": memory, **gate}


@contextmanager
def made() -> Iterator[list[int]]:
    """How often keys and values were made: a number a keeper."""
    calls: list[int] = []

    def counting(real: Any) -> Any:
        def of(self: Any, continues: bool | None, of_what: Any, make: Any) -> Any:
            def counted() -> Any:
                calls.append(id(self))
                return make()

            return real(self, continues, of_what, counted)

        return of

    with (
        patch.object(KeptPairs, "of", counting(KeptPairs.of)),
        patch.object(KeptFrom, "of", counting(KeptFrom.of)),
    ):
        yield calls


@contextmanager
def always_made() -> Iterator[None]:
    def of(self: Any, continues: bool | None, of_what: Any, make: Any) -> Any:
        return make()

    with patch.object(KeptPairs, "of", of), patch.object(KeptFrom, "of", of):
        yield


def keepers(model: nn.Module) -> int:
    """What keeps something in a model."""
    memories = [m for m in model.modules() if isinstance(m, SlotMemory)]
    return sum((m.kept is not None) + (m.turned is not None) for m in memories)


def begun(model: Any, ids: Tensor = IDS) -> DynamicCache:
    """A cache that holds a prompt."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids, past_key_values=cache)
    return cache


def token(model: Any, cache: Any, ids: Tensor = IDS) -> Tensor:
    """The logits of one token more; the cache is left as it was."""
    with torch.no_grad():
        found: Tensor = model(ids[:, -1:], past_key_values=cache).logits
    cache.crop(-1)
    return found


def layers(model: Any) -> int:
    return len(model.model.layers)


@given(
    parameterization=st.sampled_from([*MADE, {"kind": "direct"}, {"kind": "prompt"}]),
    placement=st.sampled_from(["inside", "outside"]),
    frozen=st.integers(0, 1),
    family=st.sampled_from(["llama", "qwen3", "gpt2"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    backend=st.sampled_from(["sdpa", "eager"]),
    prompt=st.integers(1, 5),
    before=st.booleans(),
)
def test_what_is_kept_says_the_same(
    parameterization: dict[str, Any],
    placement: str,
    frozen: int,
    family: str,
    dtype: torch.dtype,
    backend: str,
    prompt: int,
    before: bool,
) -> None:
    """Bit for bit, over a prompt, tokens one by one and several at once; and they are made once."""
    model: Any
    virtual = parameterization["kind"] == "prompt"
    placed = (
        {"position": "before"}
        if before and not virtual and placement == "inside" and family != "gpt2"
        else {}
    )
    if virtual:
        placement, frozen = "inside", 0
    model, _ = adapted([slots(parameterization, placement, frozen=frozen, **placed)], dtype, family)
    model.set_attn_implementation(backend)
    parts = [IDS[:, :prompt], IDS[:, :1], IDS[:, 1:3], IDS[:, 3:4]]

    def said() -> list[Tensor]:
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            return [model(part, past_key_values=cache).logits for part in parts]

    with always_made():
        wanted = said()
    for _ in range(2):
        with made() as calls:
            found = said()
        assert len(calls) == len(set(calls)) == keepers(model)
        assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("parameterization", MADE)
def test_they_are_made_again_when_a_parameter_is_another(parameterization: dict[str, Any]) -> None:
    model, handle = adapted([slots(parameterization)])
    cache = begun(model)
    before = token(model, cache)
    for parameter in handle.parameters():
        with torch.no_grad():
            parameter.add_(0.25)
        with made() as calls:
            after = token(model, cache)
        with always_made():
            assert torch.equal(after, token(model, cache))
    assert not torch.equal(before, after)
    assert calls  # the memory's are the last
    with made() as calls:
        assert torch.equal(token(model, cache), after)
    assert not calls


@pytest.mark.parametrize("name", ["k_proj", "v_proj"])
def test_they_are_made_again_when_a_projection_is_another(name: str) -> None:
    model: Any
    model, _ = adapted([slots(PROJECTED)])
    cache = begun(model)
    token(model, cache)
    projection = getattr(model.model.layers[0].self_attn, name)
    with torch.no_grad():
        projection.weight.mul_(1.5)
    with made() as calls:
        changed = token(model, cache)
    assert len(calls) == 1
    with always_made():
        assert torch.equal(changed, token(model, cache))
    projection.weight = nn.Parameter(projection.weight.detach().clone() * 2, requires_grad=False)
    with made() as calls:
        replaced = token(model, cache)
    assert len(calls) == 1
    assert not torch.equal(replaced, changed)
    setattr(model.model.layers[0].self_attn, name, copy.deepcopy(projection))
    with torch.no_grad():
        getattr(model.model.layers[0].self_attn, name).weight.zero_()
    zeroed = token(model, cache)
    with always_made():
        assert torch.equal(zeroed, token(model, cache))


def test_a_value_that_was_changed_past_autograd_counts_from_the_next_prompt() -> None:
    model, handle = adapted([slots({"kind": "mlp", "embedding": 4, "hidden": 8}, "inside")])
    cache = begun(model)
    token(model, cache)
    for parameter in handle.parameters():
        parameter.data.mul_(2)
    found = token(model, begun(model))
    with always_made():
        assert torch.equal(found, token(model, begun(model)))


@pytest.mark.parametrize("where", ["maker", "projection"])
@pytest.mark.parametrize("kind", ["pre", "post"])
def test_hooks_are_called_for_every_token(where: str, kind: str) -> None:
    model: Any
    model, _ = adapted([slots(PROJECTED)])
    cache = begun(model)
    token(model, cache)
    memory = next(m for m in model.modules() if isinstance(m, SlotMemory))
    target = memory.slots if where == "maker" else model.model.layers[0].self_attn.k_proj
    heard: list[int] = []
    register = target.register_forward_pre_hook if kind == "pre" else target.register_forward_hook
    hook = register(lambda *_: heard.append(1))
    for _ in range(2):
        heard.clear()
        token(model, cache)
        assert len(heard) == (1 if where == "maker" else 2)
    hook.remove()
    token(model, cache)
    with made() as calls:
        token(model, cache)
    assert not calls


def test_a_parametrized_projection_is_asked_for_every_token() -> None:
    model: Any
    model, _ = adapted([slots(PROJECTED)])
    cache = begun(model)
    token(model, cache)

    scaled = Scaled(1.0)
    parametrize.register_parametrization(model.model.layers[0].self_attn.v_proj, "weight", scaled)
    first = token(model, cache)
    scaled.by = 2.0
    second = token(model, cache)
    assert not torch.equal(first, second)


def test_a_projection_with_parts_is_asked_for_every_token() -> None:
    """HF PEFT's LoRA at the projections is switched off and on without a parameter being changed."""
    model: Any
    model, _ = adapted([slots(PROJECTED)])
    config = LoraConfig(r=2, target_modules=["k_proj", "v_proj"], init_lora_weights=False)
    model = inject_adapter_in_model(config, model)
    cache = begun(model)
    on = token(model, cache)
    for one in model.modules():
        if isinstance(one, BaseTunerLayer):
            one.enable_adapters(False)
    off = token(model, cache)
    with always_made():
        assert torch.equal(off, token(model, cache))
    assert not torch.equal(on, off)


def test_virtual_tokens_are_turned_once_and_again_when_they_are_others() -> None:
    model, handle = adapted([slots({"kind": "prompt"}, "inside")], torch.bfloat16)
    cache = begun(model)
    with made() as calls:
        before = token(model, cache)
    assert not calls
    with torch.no_grad():
        next(iter(handle.parameters())).mul_(2)
    with made() as calls:
        after = token(model, cache)
    assert len(calls) == layers(model)
    with always_made():
        assert torch.equal(after, token(model, cache))
    assert not torch.equal(before, after)


def test_slots_before_the_input_follow_their_values() -> None:
    model, handle = adapted([slots({"kind": "direct"}, "inside", position="before")])
    cache = begun(model)
    before = token(model, cache)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.mul_(2)
    after = token(model, cache)
    with always_made():
        assert torch.equal(after, token(model, cache))
    assert not torch.equal(before, after)


def test_gradients_pass_after_decoding() -> None:
    model, handle = adapted([slots({"kind": "mlp", "embedding": 4, "hidden": 8}, "inside"), slots(PROJECTED)])
    token(model, begun(model))
    loss = model(IDS).logits.square().sum()
    found = torch.autograd.grad(loss, list(handle.parameters()))
    assert all(bool(g.any()) for g in found)
    with always_made():
        again = torch.autograd.grad(model(IDS).logits.square().sum(), list(handle.parameters()))
    assert all(map(torch.equal, found, again))
    cache = begun(model)  # and a step that trains on a cache keeps nothing
    token(model, cache)
    with made() as calls:
        model(IDS[:, -1:], past_key_values=cache)
    assert len(calls) == 2 * layers(model)


def test_an_inference_pass_and_one_without_gradients_share_nothing_that_breaks() -> None:
    model, _ = adapted([slots({"kind": "mlp", "embedding": 4, "hidden": 8}, "inside"), slots(PROJECTED)])
    cache = begun(model)
    wanted = token(model, cache)
    with torch.inference_mode():
        inferred = DynamicCache(config=model.config)
        model(IDS, past_key_values=inferred)
        assert torch.equal(model(IDS[:, -1:], past_key_values=inferred).logits, wanted)
    assert torch.equal(token(model, cache), wanted)
    model(IDS).logits.sum().backward()


def test_copies_make_their_own() -> None:
    model: Any
    model, _ = adapted([slots(PROJECTED)])
    token(model, begun(model))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.25)
        found = token(other, begun(other))
        with always_made():
            assert torch.equal(found, token(other, begun(other)))
    kept = [m.kept for m in copy.deepcopy(model).modules() if isinstance(m, SlotMemory)]
    assert kept
    assert all(one is not None and one.found is None for one in kept)
    model, _ = adapted([slots({"kind": "direct"}, "inside", position="before")])
    wanted = token(model, begun(model))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        turned = [m.turned for m in other.modules() if isinstance(m, SlotMemory)]
        assert all(one is not None and one.found is None for one in turned)
        assert torch.equal(token(other, begun(other)), wanted)


def test_where_the_device_counts_nothing_is_kept() -> None:
    model, _ = adapted([slots(PROJECTED)])
    cache = StaticCache(config=model.config, max_cache_len=12)
    with torch.no_grad():
        model(IDS, past_key_values=cache)
        with made() as calls:
            found = [model(IDS[:, i : i + 1], past_key_values=cache).logits for i in range(2)]
    assert len(calls) == 2 * layers(model)
    wanted = DynamicCache(config=model.config)
    with torch.no_grad():
        model(IDS, past_key_values=wanted)
        for i in range(2):
            torch.testing.assert_close(model(IDS[:, i : i + 1], past_key_values=wanted).logits, found[i])


def test_each_adapter_keeps_its_own() -> None:
    """Routed, switched between, and beams."""
    model: Any = tiny_model().double()
    for seed, name in enumerate(("one", "two")):
        variant = {"name": name, "modules": [slots(PROJECTED)]}
        perturb(ctxpeft.attach(model, variant, name=name, seed=seed), seed=seed)
    ids = IDS[:, :4]
    alone = {}
    for name in ("one", "two"):
        ctxpeft.activate(model, [name])
        alone[name] = token(model, begun(model, ids), ids)
    with ctxpeft.route(model, ["one", "two"]):
        cache = begun(model, ids)
        token(model, cache, ids)
        with made() as calls:
            routed = token(model, cache, ids)
    assert not calls
    torch.testing.assert_close(routed[0], alone["one"][0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(routed[1], alone["two"][1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "name",
    ["llama-adapter", "prefix-tuning-mlp", "zero-init-nonlinear", "prompt-tuning", "p-tuning", "cartridge"],
)
def test_generation_makes_them_once(name: str) -> None:
    model: Any = tiny_model()
    perturb(ctxpeft.attach(model, name, seed=0, tokenizer=TinyTokenizer()))
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2, "pad_token_id": 0}
    with made() as calls:
        found = model.generate(IDS, **options)
    assert len(calls) == keepers(model) > 0
    with always_made():
        assert torch.equal(found, model.generate(IDS, **options))

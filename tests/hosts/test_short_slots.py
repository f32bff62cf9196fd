"""Slots beside the content go a short way, in training too; it says what the long one says, on every cache and under
every mask, passes the same gradients on, follows every change of the slots, and whoever wants to look or to have a say
is heard."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import DynamicCache, StaticCache

import ctxpeft
from ctxpeft.blocks import one_query
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.one_query import OneQuery
from ctxpeft.testing.tiny import perturb
from tests.hosts.adapted import Scaled, adapted, assert_alike, gradients, watched
from tests.hosts.competing import (
    IDS,
    MATRIX,
    PADDED,
    WEIGHED,
    counted,
    decoded,
    layers,
    long_way,
    massed,
    slots,
    ways,
)


@given(
    family=st.sampled_from(["llama", "mistral", "gemma3_text", "qwen3"]),
    kv_heads=st.sampled_from([1, 2, 4]),
    competing=st.one_of(st.integers(1, 5).map(slots), st.sampled_from(WEIGHED)),
    matrices=st.integers(0, 2),
    rows=st.integers(1, 3),
    padded=st.booleans(),
    static=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    copied=st.booleans(),
)
def test_the_short_way_says_what_the_long_one_says(
    family: str,
    kv_heads: int,
    competing: dict[str, Any],
    matrices: int,
    rows: int,
    padded: bool,
    static: bool,
    dtype: torch.dtype,
    copied: bool,
) -> None:
    """Whether a short cache is copied beside the slots, or asked apart."""
    model, _ = adapted([competing, *[MATRIX] * matrices], dtype, family, num_key_value_heads=kv_heads)
    ids, mask = IDS[:rows], PADDED[-rows:] if padded else torch.ones_like(IDS[:rows])
    cache = StaticCache(model.config, max_cache_len=9) if static else DynamicCache(config=model.config)
    with patch.object(one_query, "COPIED", one_query.COPIED if copied else 0):
        found = decoded(model, ids, mask, cache)
    expected = long_way(model, ids, mask)
    limit = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.5}[dtype]
    seen = mask.bool()
    torch.testing.assert_close(found[seen], expected[seen], rtol=limit, atol=limit)


@given(
    family=st.sampled_from(["llama", "mistral", "gemma3_text", "qwen3", "gpt2"]),
    kind=st.sampled_from(["direct", "mlp", "frozen_projection", "prompt"]),
    position=st.sampled_from(["raw", "before"]),
    matrices=st.integers(0, 1),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 9),
    padded=st.booleans(),
    base=st.booleans(),
    checkpointing=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_the_short_way_trains_as_the_long_one(
    family: str,
    kind: str,
    position: str,
    matrices: int,
    rows: int,
    tokens: int,
    padded: bool,
    base: bool,
    checkpointing: bool,
    dtype: torch.dtype,
) -> None:
    """Outputs and every gradient, also where the base is trained, and through layers computed again."""
    assume(family != "gpt2" or (kind in ("direct", "mlp") and position == "raw"))
    memory = {"parameterization": {"kind": kind}, "position": "before" if kind == "prompt" else position}
    model, handle = adapted([slots(memory=memory), *[MATRIX] * matrices], dtype, family)
    model.requires_grad_(base)
    for parameter in handle.parameters():
        parameter.requires_grad_(True)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ids, mask = IDS[:rows, -tokens:], (PADDED if padded else torch.ones_like(IDS))[-rows:, -tokens:]
    with counted() as calls:
        found = gradients(model, handle, ids, mask)
    assert calls == [True] * layers(model) * (2 if checkpointing else 1)
    with watched(model), counted() as calls:
        wanted = gradients(model, handle, ids, mask)
    assert not calls
    limit = {torch.float64: 1e-10, torch.float32: 1e-3, torch.bfloat16: 0.3}[dtype]
    assert_alike(found, wanted, limit)


@pytest.mark.parametrize("copied", [True, False])
def test_a_short_cache_beside_the_slots(copied: bool) -> None:
    """Copied to be one list with them, or a list of its own."""
    model, _ = adapted([slots()])
    mask, real, found = torch.ones_like(IDS), OneQuery._copies, []

    def copies(asked: OneQuery, key: Tensor) -> bool:
        found.append(real(asked, key))
        return found[-1]

    limit = one_query.COPIED if copied else 0
    with patch.object(one_query, "COPIED", limit), patch.object(OneQuery, "_copies", copies):
        logits = decoded(model, IDS, mask, DynamicCache(config=model.config))
    assert found
    assert set(found) == {copied}
    torch.testing.assert_close(logits, long_way(model, IDS, mask), rtol=1e-10, atol=1e-10)


def test_absolute_positions_and_one_head_each() -> None:
    model, _ = adapted([slots()], family="gpt2")
    mask = torch.ones_like(IDS)
    found = decoded(model, IDS, mask, DynamicCache(config=model.config))
    torch.testing.assert_close(found, long_way(model, IDS, mask), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("competing", [slots(), *WEIGHED])
def test_a_query_that_sees_nothing_reads_what_competes_alone(competing: dict[str, Any]) -> None:
    model, _ = adapted([competing])
    mask = torch.ones(3, 1, 1, 1, dtype=torch.bool)
    mask[1] = False
    with torch.no_grad(), counted() as calls:
        found = model(IDS[:, :1], attention_mask=mask, use_cache=False).logits
    assert calls == [True, True]
    with torch.no_grad(), watched(model), counted() as calls:
        expected = model(IDS[:, :1], attention_mask=mask, use_cache=False).logits
    assert not calls
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


CHANGES = {
    "in place": lambda p: p.mul_(-2),
    "behind autograd": lambda p: p.data.mul_(-2),
    "other storage": lambda p: setattr(p, "data", p.data * -2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_slots_is_seen(change: str) -> None:
    model, handle = adapted([slots()])
    for parameter in handle.parameters():
        ways(model)
        with torch.no_grad():
            before = model(IDS[:, :1]).logits
            CHANGES[change](parameter)
            assert not torch.allclose(model(IDS[:, :1]).logits, before, atol=1e-6)
        ways(model)


def test_swapped_loaded_and_other_active_slots_are_seen(tmp_path: Any) -> None:
    model, handle = adapted([slots()])
    handle.save(tmp_path)
    ways(model)
    perturb(handle, seed=9)
    ways(model)
    handle.hotswap(tmp_path)
    ways(model)
    ctxpeft.load(model, tmp_path, name="more")
    perturb(handle, seed=8)
    for name in ("default", "more"):
        ctxpeft.activate(model, [name])
        with torch.no_grad(), counted() as calls:
            found = model(IDS[:, :1]).logits
        assert calls == [True, True]
        torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)
    ctxpeft.activate(model, ["default", "more"])  # two lists of slots
    with torch.no_grad(), counted() as calls:
        found = model(IDS[:, :1]).logits
    assert not calls
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "other",
    [
        slots(merge="compete_length", query={"source": "rotated", "norm": "rms"}),
        massed(learned_temperature=True),
        {**massed(), "memory": {"kind": "matrix", "form": "low_rank", "rank": 2}},
        {**massed(), "feature_map": {"kind": "hedgehog"}},
        {**massed(), "gate": {"kind": "scalar", "on": "mass", "activation": "sigmoid"}},
        slots(gate={"kind": "scalar", "on": "mass", "activation": "sigmoid"}),
        slots(query={"source": "rotated", "norm": "rms"}),
        slots(query={"source": "unrotated"}),
        slots(scope={"heads": [0, 2]}),
        slots(scope={"tokens": "prompt"}),
        slots(memory={"score": "norga"}),
        slots(memory={"per": "query_head"}),
        slots(memory={"per": "layer"}),
    ],
)
def test_all_else_goes_the_long_way(other: dict[str, Any]) -> None:
    model, _ = adapted([other])
    with torch.no_grad(), counted() as calls:
        found = model(IDS[:, :1]).logits
    assert not any(calls)
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)


def test_other_backends_and_caps_go_the_long_way() -> None:
    for family, options in (("llama", {"attn_implementation": "eager"}), ("gemma2", {})):
        model, _ = adapted([slots()], family=family)
        if options:
            model.set_attn_implementation("eager")
        with torch.no_grad(), counted() as calls:
            found = model(IDS[:, :1]).logits
        assert not any(calls)
        torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["mlp", "low_rank", "shared_kv", "direct"])
@pytest.mark.parametrize("frozen", [0, 2])
def test_slots_that_are_made_of_their_own_tensors(kind: str, frozen: int) -> None:
    more = {"rank": 2} if kind == "low_rank" else {}
    model, handle = adapted([slots(memory={"parameterization": {"kind": kind, **more}, "frozen": frozen})])
    for seed in (1, 2):
        perturb(handle, seed=seed)
        ways(model)
    mask = torch.ones_like(IDS)
    found = decoded(model, IDS, mask, DynamicCache(config=model.config))
    torch.testing.assert_close(found, long_way(model, IDS, mask), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["prompt", "frozen_projection", "direct", "mlp"])
@pytest.mark.parametrize("position", ["before", "offset"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_slots_that_the_host_makes_or_turns(kind: str, position: str, family: str) -> None:
    memory = {"parameterization": {"kind": kind}, "position": position}
    model, handle = adapted([slots(memory=memory), MATRIX], family=family)
    for seed in (1, 2):
        perturb(handle, seed=seed)
        ways(model)
    mask = torch.ones_like(IDS)
    if position == "before":  # with an offset, positions that are given are those of the whole
        found = decoded(model, IDS, mask, DynamicCache(config=model.config))
        torch.testing.assert_close(found, long_way(model, IDS, mask), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("competing", "part"),
    [
        *((massed(norm="rms"), part) for part in ("", "query", "memory", "feature_map")),
        *((slots(merge="compete_length"), part) for part in ("", "query", "memory")),
    ],
)
def test_hooks_on_what_competes_by_its_weight_are_called(competing: dict[str, Any], part: str) -> None:
    model, _ = adapted([competing])
    ways(model)
    heard: list[str] = []
    target = next(m for m in model.modules() if isinstance(m, ContextModule)).get_submodule(part)
    for register in (target.register_forward_pre_hook, target.register_forward_hook):
        hook = register(lambda *_: heard.append(part))
        with torch.no_grad():
            model(IDS[:, :1])
        assert heard == [part]
        heard.clear()
        hook.remove()
    ways(model)


def test_a_parametrized_bias_of_the_length_is_asked_for_what_it_is() -> None:
    model, _ = adapted([slots(merge="compete_length")])
    ways(model)
    with torch.no_grad():
        before = model(IDS[:, :1]).logits
    for one in [m for m in model.modules() if isinstance(m, ContextModule)]:
        parametrize.register_parametrization(one, "length_bias", Scaled(-3.0))
    with torch.no_grad():
        found = model(IDS[:, :1]).logits
    assert not torch.allclose(found, before)
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sees", [True, False])
def test_a_query_without_features_reads_the_content_alone(sees: bool) -> None:
    """Where it sees nothing of that either, it is left as the general way leaves it."""
    q, k, v = (torch.randn(1, heads, 1, 4, dtype=torch.float64) for heads in (4, 2, 2))
    blind = None if sees else torch.ones(1, 1, 1, dtype=torch.bool)
    asked = OneQuery.of(q, k, v, None, blind, 0.5, torch.float64)
    assert asked is not None
    matrix, z = (torch.randn(4, 3, width, dtype=torch.float64) for width in (4, 1))
    found = asked.beside_mass(torch.zeros(1, 4, 1, 3, dtype=torch.float64), matrix, z.exp(), 1)
    alone = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_hooks_on_the_slots_are_called(kind: str) -> None:
    model, _ = adapted([slots()])
    heard: list[str] = []
    one = next(m for m in model.modules() if isinstance(m, ContextModule)).get_submodule("memory.slots")
    register = one.register_forward_pre_hook if kind == "pre" else one.register_forward_hook
    hook = register(lambda *_: heard.append(kind))
    with torch.no_grad():
        model(IDS[:, :1])
    assert heard == [kind]
    hook.remove()
    ways(model)
    assert len(heard) == 1


def test_instruments_routing_and_autocast_go_the_long_way() -> None:
    model, _ = adapted([slots()], torch.float32)
    first = IDS[:, :1]
    with torch.no_grad(), counted() as calls, torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model(first).logits).all()
    assert not calls
    seen: list[int | None] = []
    controller = model.__dict__["_ctxpeft"]
    controller.watch = lambda layer, capture, part: seen.append(layer)
    with torch.no_grad(), counted() as calls:
        model(first)
    controller.watch = None
    assert not calls
    assert seen == [0, 1]
    with torch.no_grad(), counted() as calls, ctxpeft.route(model, ["default", None, "default"]):
        routed = model(first).logits
    assert not calls
    expected = long_way(model, first)
    torch.testing.assert_close(routed[[0, 2]], expected[[0, 2]], rtol=1e-4, atol=1e-4)

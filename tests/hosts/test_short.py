"""A read that is added goes a short way, in training too; it says what the long one says and passes the same gradients
on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ctxpeft
from ctxpeft.blocks import products
from ctxpeft.hosts import seam
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.adapted import adapted, assert_alike, gradients, watched
from tests.hosts.adding import IDS, SLOTS, TOKEN, counted, long_way, module

ASKED: list[dict[str, Any]] = [
    {},
    {"norm": "rms", "learned_temperature": True},
    {"norm": "l2", "scale": "inverse_sqrt"},
]
GATES: list[dict[str, Any]] = [
    {},
    {"gate": {"kind": "constant", "value": 0.3}},
    {"gate": {"kind": "scalar", "per": "layer"}},
    {"gate": {"kind": "scalar", "per": "channel"}},
    {"gate": {**TOKEN, "source": "query"}},
    {"gate": {**TOKEN, "source": "hidden", "activation": "tanh"}},
]
MEMORIES: list[dict[str, Any]] = [
    {},
    {"per": "kv_head"},
    {"per": "layer"},
    {"form": "low_rank", "rank": 3},
    {"form": "low_rank", "rank": 3, "per": "kv_head"},
]


@given(
    kinds=st.lists(
        st.sampled_from(["elu", "gelu", "relu", "squared_relu", "identity", "one"]), min_size=1, max_size=2
    ),
    sources=st.lists(st.sampled_from(["rotated", "unrotated"]), min_size=2, max_size=2),
    shared=st.lists(st.sampled_from(["query_head", "kv_head", "layer"]), min_size=2, max_size=2),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 7),
    frozen=st.booleans(),
    checkpointing=st.booleans(),
    kept=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_the_short_way_trains_as_the_long_one(
    kinds: list[str],
    sources: list[str],
    shared: list[str],
    rows: int,
    tokens: int,
    frozen: bool,
    checkpointing: bool,
    kept: bool,
    dtype: torch.dtype,
) -> None:
    """Outputs and every gradient, also where the base is trained or frozen, and through layers computed again; what
    the map makes is kept, as the CPU does, or computed again, as others do."""
    modules = [
        module(s, feature_map={"kind": k}, memory={"kind": "matrix", "per": per})
        for s, k, per in zip(sources, kinds, shared, strict=False)
    ]
    model, handle = adapted(modules, dtype)
    model.requires_grad_(not frozen)
    for parameter in handle.parameters():
        parameter.requires_grad_(True)
    ids = IDS[:rows, :tokens]
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    with counted() as calls, patch.object(products, "_kept", lambda *_: kept):
        found = gradients(model, handle, ids)
    assert len(calls) == len(modules) * len(model.model.layers) * (2 if checkpointing else 1)
    with watched(model), counted() as calls:
        wanted = gradients(model, handle, ids)
    assert not calls
    limit = {torch.float64: 1e-11, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    assert_alike(found, wanted, limit)


@given(
    kinds=st.lists(
        st.sampled_from(["elu", "gelu", "relu", "squared_relu", "identity"]), min_size=1, max_size=2
    ),
    sources=st.lists(st.sampled_from(["rotated", "unrotated"]), min_size=2, max_size=2),
    memories=st.lists(st.sampled_from(MEMORIES), min_size=2, max_size=2),
    asked=st.lists(st.sampled_from(ASKED), min_size=2, max_size=2),
    gates=st.lists(st.sampled_from(GATES), min_size=2, max_size=2),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 7),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    eager=st.booleans(),
)
def test_the_short_way_says_what_the_long_one_says(
    kinds: list[str],
    sources: list[str],
    memories: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    gates: list[dict[str, Any]],
    rows: int,
    tokens: int,
    dtype: torch.dtype,
    eager: bool,
) -> None:
    modules = [
        module(feature_map={"kind": k}, memory={"kind": "matrix", **m}, query={"source": s, **a}, **g)
        for s, k, m, a, g in zip(sources, kinds, memories, asked, gates, strict=False)
    ]
    model, _ = adapted(modules, dtype)
    if eager:
        model.set_attn_implementation("eager")
    ids = IDS[:rows, :tokens]
    for _ in range(2):
        with torch.no_grad(), counted() as calls:
            found = model(ids).logits
        assert len(calls) == len(modules) * len(model.model.layers)
    close = {} if dtype == torch.float64 else {torch.float32: 1e-5, torch.bfloat16: 0.1}
    limit = 1e-11 if dtype == torch.float64 else close[dtype]
    torch.testing.assert_close(found, long_way(model, ids), rtol=limit, atol=limit)


ADDED: list[dict[str, Any]] = [
    module(memory={"kind": "matrix", "form": "diagonal"}),
    module(memory={"kind": "matrix", "form": "low_rank", "rank": 2}),
    module(memory={"kind": "matrix", "form": "low_rank", "rank": 2, "per": "kv_head"}),
    module(gate={"kind": "scalar"}),
    module(gate={"kind": "scalar", "per": "channel"}, feature_map={"kind": "gelu"}),
    module(gate={"kind": "constant", "value": 0.3}),
    module(gate={**TOKEN, "source": "hidden"}),
    module("unrotated", gate={**TOKEN, "source": "query"}, memory={"kind": "matrix", "per": "kv_head"}),
    module(feature_map={"kind": "relu"}, normalizer="sum"),
    module(query={"source": "rotated", "norm": "rms", "learned_temperature": True}),
    module(query={"source": "unrotated", "norm": "l2", "scale": "inverse_sqrt"}),
    module(query={"source": "hidden"}, memory={"kind": "matrix", "per": "layer"}),
    module(feature_map={"kind": "hedgehog"}, gate={**TOKEN, "source": "hidden", "activation": "tanh"}),
    {"placement": "outside", "memory": {"kind": "vector"}},
    {"placement": "outside", "memory": SLOTS},
    {"placement": "outside", "memory": {**SLOTS, "score": "relu"}},
    {"placement": "outside", "memory": SLOTS, "gate": {**TOKEN, "source": "hidden"}},
]


@contextmanager
def shortly() -> Iterator[None]:
    """Inside the block the general way is closed."""
    with patch.object(seam, "merge", side_effect=AssertionError):
        yield


@given(
    added=st.lists(st.sampled_from(ADDED), min_size=1, max_size=2),
    slots=st.booleans(),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 5),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    eager=st.booleans(),
    checkpointing=st.booleans(),
)
def test_all_that_adds_goes_with_it(
    added: list[dict[str, Any]],
    slots: bool,
    rows: int,
    tokens: int,
    dtype: torch.dtype,
    eager: bool,
    checkpointing: bool,
) -> None:
    """Values and every gradient are those of the general way."""
    inside = [{"placement": "inside", "memory": SLOTS}] * (slots and not eager)
    model, handle = adapted([*added, *inside], dtype)
    if eager:
        model.set_attn_implementation("eager")
    ids = IDS[:rows, :tokens]
    with torch.no_grad(), shortly():
        found = model(ids).logits
    expected = long_way(model, ids)
    limit = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.3}[dtype]
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, rtol=limit, atol=limit)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    with shortly():
        mine = gradients(model, handle, ids)
    with watched(model):
        wanted = gradients(model, handle, ids)
    assert_alike(mine, wanted, 10 * limit)


@pytest.mark.parametrize("one", ADDED)
def test_what_adds_of_several_adapters_in_one_batch(one: dict[str, Any]) -> None:
    """A decoded token of rows that are routed is read at once where that is known how, and is each row's own."""
    model: Any = tiny_model().double()
    for seed, name in enumerate(("one", "two")):
        perturb(ctxpeft.attach(model, {"name": name, "modules": [one]}, name=name, seed=seed), seed=seed)
    alone = {}
    for name in ("one", "two"):
        ctxpeft.activate(model, name)
        alone[name] = long_way(model, IDS[:, :1])
    at_once = "hidden" not in (one.get("query", {}).get("source"), one.get("gate", {}).get("source"))
    with (
        torch.no_grad(),
        ctxpeft.route(model, ["one", "two", "one"]),
        shortly() if at_once else nullcontext(),
    ):
        found = model(IDS[:, :1]).logits
    for row, name in enumerate(("one", "two", "one")):
        torch.testing.assert_close(found[row], alone[name][row], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "other",
    [
        module(scope={"heads": [0, 2]}),
        module(scope={"tokens": "prompt"}),
        module(merge="mix", gate={"kind": "scalar"}),
        module(gate={**TOKEN, "source": "output"}),
        module(gate={**TOKEN, "source": "log_mass"}),
        {"placement": "inside", "memory": SLOTS, "gate": {"kind": "scalar"}},
    ],
)
def test_all_else_goes_the_long_way(other: dict[str, Any]) -> None:
    model, _ = adapted([module(), other])
    with counted() as calls, patch.object(seam, "merge", wraps=seam.merge) as merge:
        found = model(IDS).logits
        with torch.no_grad():
            without = model(IDS).logits
    assert not calls
    assert merge.call_count == 2 * len(model.model.layers)
    torch.testing.assert_close(found.detach(), without, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_what_the_model_owns_for_all_layers_goes_the_long_way(placement: str) -> None:
    """With one query head a memory of all layers is folded as one a head is."""
    kind = {"kind": "slots", "count": 2} if placement == "inside" else {"kind": "matrix"}
    one = module(placement=placement, memory={**kind, "per": "model"})
    if placement == "inside":
        del one["feature_map"], one["query"]
    model = tiny_model("llama", num_attention_heads=1, num_key_value_heads=1).double()
    perturb(ctxpeft.attach(model, {"name": "shared", "modules": [one]}, seed=0))
    with torch.no_grad(), counted() as calls:
        found = model(IDS[:, :1]).logits
    assert not calls
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "one",
    [
        module(),
        module(memory={"kind": "matrix", "form": "low_rank", "rank": 2}),
        module(query={"source": "rotated", "norm": "rms", "learned_temperature": True}),
        module(gate={"kind": "scalar"}),
        module(gate={**TOKEN, "source": "hidden"}),
        {"placement": "outside", "memory": {"kind": "vector"}},
        {"placement": "outside", "memory": SLOTS},
    ],
)
def test_many_values_of_the_parameters_at_once(one: dict[str, Any]) -> None:
    """`torch.vmap` over an adapter."""
    model, _ = adapted([one])
    values = {name: p for name, p in model.named_parameters() if p.requires_grad}
    stacked = {name: torch.stack([p, 2 * p]).detach() for name, p in values.items()}
    mask = torch.ones(len(IDS), 1, 7, 7, dtype=torch.bool).tril()

    def call(parameters: dict[str, Tensor]) -> Tensor:
        options = {"use_cache": False, "attention_mask": mask}
        found: Tensor = torch.func.functional_call(model, parameters, (IDS,), options).logits
        return found

    with torch.no_grad():
        found = torch.vmap(call)(stacked)
        assert torch.allclose(found[0], call({name: p.detach() for name, p in values.items()}))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(
    "one", [{"gate": {"kind": "scalar"}}, {"query": {"source": "rotated", "norm": "rms"}}]
)
def test_what_trains_a_gate_or_a_query_is_computed_again(one: dict[str, Any]) -> None:
    """In training these go the way on which a GPU does not keep what the map makes."""
    model, handle = adapted([module(**one)])
    with counted() as calls:
        gradients(model, handle, IDS)
    assert not calls
    with counted() as calls, torch.no_grad():
        model(IDS)
    assert len(calls) == len(model.model.layers)


def test_a_module_that_comes_later_is_heard_in_the_next_pass() -> None:
    """The adapters that act are the same; what was chosen for them is chosen anew."""
    model, _ = adapted([module()])
    other, _ = adapted([module("unrotated")])
    seams, theirs = model.__dict__["_ctxpeft"].seams, other.__dict__["_ctxpeft"].seams
    with torch.no_grad():
        alone = model(IDS).logits
        assert torch.equal(model(IDS).logits, alone)
        for index, one in seams.items():
            (more,) = theirs[index].attention_site.modules_of("default")
            one.add("default", "1", more)
        both = model(IDS).logits
    assert not torch.allclose(both, alone, atol=1e-6)
    assert torch.allclose(both, long_way(model, IDS), atol=1e-9)

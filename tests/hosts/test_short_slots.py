"""Slots beside the content go a short way, in training too; it says what the long one says, on every cache and under
every mask, passes the same gradients on, follows every change of the slots, and whoever wants to look or to have a say
is heard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from ctxpeft.blocks.capture import Read
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.memory.slots import SlotMemory, Slots
from ctxpeft.blocks.one_query import OneQuery
from ctxpeft.errors import HostError
from ctxpeft.hosts import seam, short
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.adapted import Scaled, adapted, watched

IDS = torch.randint(3, 61, (3, 9), generator=torch.Generator().manual_seed(4))
PADDED = torch.tensor([[1] * 9, [0] * 2 + [1] * 7, [0] * 4 + [1] * 5])
MATRIX = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}


def slots(count: int = 3, memory: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    init = {"kind": "normal", "std": 0.5}
    kind = {"kind": "slots", "count": count, "init": init, **(memory or {})}
    return {"placement": "inside", "memory": kind, **more}


def massed(per: str = "query_head", **query: Any) -> dict[str, Any]:
    """A matrix that competes by its mass, of positive features."""
    memory = {"kind": "matrix", "per": per}
    return {"placement": "inside", "feature_map": {"kind": "elu_plus_one"}, "memory": memory, "query": query}


WEIGHED = [
    slots(merge="compete_length"),
    slots(1, merge="compete_length", length_bias=2.0),
    massed(),
    massed("kv_head", scale="inverse_fourth_root"),
    massed("layer", norm="rms"),
    {**massed(), "feature_map": {"kind": "relu"}},
]


@contextmanager
def counted() -> Iterator[list[bool]]:
    """Of every attempt at the short way whether it served."""
    calls: list[bool] = []
    real = short.beside

    def beside(*args: Any) -> Tensor | None:
        found = real(*args)
        calls.append(found is not None)
        return found

    with patch("ctxpeft.hosts.seam.beside", beside):
        yield calls


def layers(model: nn.Module) -> int:
    """Those with something that competes."""
    return sum(isinstance(m, ContextModule) and m.spec.placement == "inside" for m in model.modules())


def is_weighed(model: nn.Module) -> bool:
    return any(isinstance(m, ContextModule) and m.weighed for m in model.modules())


def long_way(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """All tokens at once by the general way, without gradients."""
    positions = None if mask is None else (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad(), watched(model), counted() as calls:
        found: Tensor = model(ids, attention_mask=mask, position_ids=positions).logits
    assert not calls
    return found


def decoded(model: nn.Module, ids: Tensor, mask: Tensor, cache: Any, begin: int = 5) -> Tensor:
    """A prompt, then token by token; all go the short way, in every layer, but for a prompt whose content is weighed
    against the input's length or a matrix."""
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    found = []
    with torch.no_grad():
        for start, end in ((0, begin), *((i, i + 1) for i in range(begin, ids.shape[1]))):
            with counted() as calls:
                out = model(
                    ids[:, start:end],
                    attention_mask=mask[:, :end],
                    position_ids=positions[:, start:end],
                    past_key_values=cache,
                )
            assert calls == [end - start == 1 or not is_weighed(model)] * layers(model)
            found.append(out.logits)
    return torch.cat(found, 1)


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
    for mine, theirs in zip(found, wanted, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=limit, atol=limit)


def gradients(model: Any, handle: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Logits of the text, and gradients of the input embeddings and of every parameter of the adapter."""
    states = model.get_input_embeddings()(ids).detach().requires_grad_()
    out = model(inputs_embeds=states, attention_mask=mask, use_cache=False).logits[mask.bool()]
    loss = (out * torch.linspace(-1, 1, out.shape[-1], dtype=out.dtype)).sum()
    return [out.detach(), *torch.autograd.grad(loss, [states, *handle.parameters()])]


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


@pytest.mark.parametrize("per", ["query_head", "kv_head", "layer"])
@pytest.mark.parametrize("merge", ["compete", "compete_length"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_whose_slots_they_are_does_not_hang_on_the_size_of_a_batch(
    per: str, merge: str, kv_heads: int
) -> None:
    """One set for each head, key head or layer, of each row or of all: as many sets may mean another thing."""
    one = slots(merge=merge, memory={"per": per})
    model: Any = tiny_model("llama", num_key_value_heads=kv_heads).double()
    for seed, name in enumerate("ab"):
        perturb(ctxpeft.attach(model, {"name": name, "modules": [one]}, name=name, seed=seed), seed=seed)
    for rows in range(1, 5):
        ids = torch.cat([IDS, IDS])[:rows, :1]
        ctxpeft.activate(model, "a")
        with torch.no_grad():
            found = model(ids).logits
        torch.testing.assert_close(found, long_way(model, ids), rtol=1e-10, atol=1e-10)
        with torch.no_grad(), ctxpeft.route(model, list("abab"[:rows])):
            found = model(ids).logits
        expected = row_by_row(model, list("abab"[:rows]), ids, torch.ones_like(ids))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


CHANGES = {
    "in place": lambda p: p.mul_(-2),
    "behind autograd": lambda p: p.data.mul_(-2),
    "other storage": lambda p: setattr(p, "data", p.data * -2),
}


def ways(model: nn.Module) -> None:
    """One token, the short way and the long one."""
    with torch.no_grad(), counted() as calls:
        found = model(IDS[:, :1]).logits
    assert calls == [True] * layers(model)
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)


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


def outside(parameterization: dict[str, Any], per: str, source: str, gate: str | None) -> dict[str, Any]:
    """Slots whose read is added, gated by a number of each layer, head or channel."""
    memory = {"kind": "slots", "count": 3, "parameterization": parameterization, "per": per}
    query = {"query": {"source": source}}
    return {"placement": "outside", "memory": memory, **query, **({} if gate is None else gated(gate))}


def gated(per: str) -> dict[str, Any]:
    return {"gate": {"kind": "scalar", "activation": "tanh", "per": per}}


@contextmanager
def reads() -> Iterator[list[int]]:
    """How often slots outside went the short way."""
    calls: list[int] = []
    real = ContextModule.add_read

    def add_read(self: ContextModule, *args: Any) -> Tensor:
        calls.append(1)
        return real(self, *args)

    with patch.object(ContextModule, "add_read", add_read):
        yield calls


@given(
    kind=st.sampled_from(["direct", "mlp", "frozen_projection", "prompt"]),
    per=st.sampled_from(["kv_head", "query_head", "layer"]),
    source=st.sampled_from(["rotated", "unrotated"]),
    gate=st.sampled_from([None, "layer", "head", "channel"]),
    with_matrix=st.booleans(),
    inside=st.booleans(),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 6),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    eager=st.booleans(),
)
def test_slots_outside_say_what_they_say_the_long_way(
    kind: str,
    per: str,
    source: str,
    gate: str | None,
    with_matrix: bool,
    inside: bool,
    rows: int,
    tokens: int,
    dtype: torch.dtype,
    eager: bool,
) -> None:
    made_by_the_host = kind in ("frozen_projection", "prompt")
    source = "rotated" if kind == "prompt" else source
    modules = [outside({"kind": kind}, "kv_head" if made_by_the_host else per, source, gate)]
    modules += [MATRIX] * with_matrix + [slots()] * inside
    model, _ = adapted(modules, dtype)
    if eager:
        model.set_attn_implementation("eager")
    ids = IDS[:rows, :tokens]
    for _ in range(2):
        with torch.no_grad(), reads() as calls:
            found = model(ids).logits
        serves = not (inside and eager)
        assert len(calls) == len(model.model.layers) * serves
    with reads() as calls:
        expected = long_way(model, ids)
    assert not calls
    limit = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.5}[dtype]
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize(
    "other",
    [
        {"gate": {"kind": "token", "source": "hidden", "activation": "sigmoid"}},
        {"scope": {"heads": [0, 2]}},
        {"scope": {"tokens": "prompt"}},
        {"query": {"source": "rotated", "norm": "rms"}},
        {"merge": "mix", **gated("head")},
    ],
)
def test_other_slots_outside_go_the_long_way(other: dict[str, Any]) -> None:
    model, _ = adapted([{"placement": "outside", "memory": {"kind": "slots", "count": 3}, **other}])
    with torch.no_grad(), reads() as calls:
        found = model(IDS).logits
    assert not calls
    torch.testing.assert_close(found, long_way(model, IDS), rtol=1e-10, atol=1e-10)


def test_a_memory_that_reads_in_its_own_way_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that derives from slots and has a `forward` of its own."""

    class Doubled(SlotMemory):
        def forward(self, x: Tensor, phi: Any, capture: Any) -> Read:
            n, m, c = super().forward(x, phi, capture)
            return Read(2 * n, m, c)

    variant = [outside({"kind": "direct"}, "kv_head", "rotated", None)]
    plain, _ = adapted(variant)
    monkeypatch.setattr(Slots, "build", lambda spec, shape, phi, per, mass: Doubled(spec, shape, mass))
    model, _ = adapted(variant)
    with torch.no_grad(), reads() as calls:
        found = model(IDS).logits
    assert not calls
    torch.testing.assert_close(found, long_way(model, IDS), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(found, long_way(plain, IDS))


@pytest.mark.parametrize("gate", [None, "layer", "head", "channel"])
@pytest.mark.parametrize("per", ["kv_head", "query_head"])
def test_slots_outside_of_several_adapters_in_one_batch(gate: str | None, per: str) -> None:
    """A decoded token of rows that are routed reads all slots at once."""
    model: Any = tiny_model().double()
    for seed, name in enumerate(("one", "two")):
        variant = {"name": name, "modules": [outside({"kind": "direct"}, per, "rotated", gate)]}
        perturb(ctxpeft.attach(model, variant, name=name, seed=seed), seed=seed)
    alone = {}
    for name in ("one", "two"):
        ctxpeft.activate(model, name)
        with torch.no_grad():
            alone[name] = model(IDS[:, :1]).logits
    with torch.no_grad(), ctxpeft.route(model, ["one", "two", "one"]), reads() as calls:
        found = model(IDS[:, :1]).logits
    assert len(calls) == len(model.model.layers)
    for row, name in enumerate(("one", "two", "one")):
        torch.testing.assert_close(found[row], alone[name][row], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("part", ["", "query", "memory", "memory.slots", "gate"])
def test_hooks_on_slots_outside_are_called(part: str) -> None:
    model, _ = adapted([outside({"kind": "direct"}, "kv_head", "rotated", "head")])
    heard: list[str] = []
    target = next(m for m in model.modules() if isinstance(m, ContextModule)).get_submodule(part)
    for register in (target.register_forward_pre_hook, target.register_forward_hook):
        hook = register(lambda *_: heard.append(part))
        for tokens in (1, 4):
            heard.clear()
            with torch.no_grad():
                model(IDS[:, :tokens])
            assert heard == [part]
        hook.remove()


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


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_parametrized_slots_are_asked_for_what_they_are(placement: str) -> None:
    model, _ = adapted(
        [slots() if placement == "inside" else outside({"kind": "direct"}, "kv_head", "rotated", None)]
    )
    with torch.no_grad():
        before = model(IDS[:, :1]).logits

    for one in [m for m in model.modules() if isinstance(m, ContextModule)]:
        parametrize.register_parametrization(one.get_submodule("memory.slots"), "value", Scaled(2.0))
    with torch.no_grad():
        found = model(IDS[:, :1]).logits
    assert not torch.allclose(found, before)
    torch.testing.assert_close(found, long_way(model, IDS[:, :1]), rtol=1e-10, atol=1e-10)


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


def routed(modules: list[dict[str, Any]], names: str = "abc") -> nn.Module:
    model = tiny_model("llama").double()
    for seed, name in enumerate(names):
        handle = ctxpeft.attach(model, {"name": "short", "modules": modules}, name=name, seed=seed)
        perturb(handle, seed=seed)
    return model


def row_by_row(model: nn.Module, rows: list[str], ids: Tensor, mask: Tensor) -> Tensor:
    found = []
    for row, name in enumerate(rows):
        ctxpeft.activate(model, [name])
        found.append(long_way(model, ids[row : row + 1], mask[row : row + 1]))
    return torch.cat(found)


@pytest.mark.parametrize(
    "modules", [[slots()], [slots(), MATRIX], [MATRIX, MATRIX], *([one] for one in WEIGHED)]
)
@pytest.mark.parametrize("rows", ["abc", "aba", "aaa"])
@pytest.mark.parametrize("padded", [False, True])
def test_an_adapter_a_row(modules: list[dict[str, Any]], rows: str, padded: bool) -> None:
    """Also where all rows have the same one, and after one of them has changed."""
    model = routed(modules)
    mask = PADDED if padded else torch.ones_like(IDS)
    served = [True] * 2 * any(one["placement"] == "inside" for one in modules)
    for factor in (1, -2):
        with torch.no_grad():
            for parameter in model.__dict__["_ctxpeft"].handles["a"].parameters():
                parameter.mul_(factor)
        expected = row_by_row(model, list(rows), IDS, mask)
        with torch.no_grad(), ctxpeft.route(model, list(rows)):
            cache = DynamicCache(config=model.config)
            places = (mask.cumsum(1) - 1).clamp_min(0)
            options = {"attention_mask": mask, "past_key_values": cache}
            model(IDS[:, :8], position_ids=places[:, :8], **{**options, "attention_mask": mask[:, :8]})
            with counted() as calls, patch.object(seam, "merge", side_effect=AssertionError):
                last = model(IDS[:, 8:], position_ids=places[:, 8:], **options).logits
        assert calls == served
        torch.testing.assert_close(last, expected[:, 8:], rtol=1e-10, atol=1e-10)


def test_rows_of_beams_and_rows_without_an_adapter() -> None:
    model = routed([slots(), MATRIX], "ab")
    ids = IDS[:2, :1].repeat_interleave(2, 0)
    mask = torch.ones_like(ids)
    with torch.no_grad(), counted() as calls, ctxpeft.route(model, ["a", "b"]):
        found = model(ids).logits
    assert calls == [True, True]
    expected = row_by_row(model, ["a", "a", "b", "b"], ids, mask)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad(), counted() as calls, ctxpeft.route(model, ["a", None, "b", "a"]):
        found = model(ids).logits
    assert not calls
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], rtol=1e-10, atol=1e-10)
    with (
        torch.no_grad(),
        ctxpeft.route(model, ["a", "a", "a"]),
        pytest.raises(HostError, match="3 rows"),
    ):
        model(ids)


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

"""Slots whose read is added go a short way where nothing is trained; it says what the long one says, and whoever wants
to have a say is heard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import parametrize

import ctxpeft
from ctxpeft.blocks.capture import Read
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.memory.slots import SlotMemory, Slots
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.adapted import Scaled, adapted
from tests.hosts.competing import (
    IDS,
    MATRIX,
    long_way,
    slots,
)


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

"""Whoever wants to look at a read that is added, or to have a say in it, is heard, though it goes a short way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import ctxpeft
from ctxpeft.blocks.context_module import ContextModule
from tests.hosts.adapted import Scaled, adapted, watched
from tests.hosts.adding import IDS, SLOTS, TOKEN, counted, long_way, module

OUTSIDE = {"placement": "outside", "memory": SLOTS}
GATED = module(query={"source": "unrotated", "norm": "rms"}, gate={**TOKEN, "source": "hidden"})


@pytest.mark.parametrize("part", ["", "query", "memory", "feature_map", "gate"])
@pytest.mark.parametrize("kind", ["pre", "post"])
def test_hooks_on_its_parts_are_called(part: str, kind: str) -> None:
    model, _ = adapted([GATED if part == "gate" else module()])
    heard: list[str] = []
    one = next(m for m in model.modules() if isinstance(m, ContextModule))
    target = one.get_submodule(part)
    register = target.register_forward_pre_hook if kind == "pre" else target.register_forward_hook
    for warm in (False, True):
        heard.clear()
        hook = register(lambda *_: heard.append(part))
        with torch.no_grad():
            model(IDS)
        assert heard, warm
        hook.remove()
        with torch.no_grad():
            model(IDS)
    heard.clear()
    with torch.no_grad(), counted() as calls:
        model(IDS)
    assert calls
    assert not heard


@pytest.mark.parametrize("part", ["query", "memory", "feature_map"])
@pytest.mark.parametrize("kind", ["pre", "post"])
def test_backward_hooks_on_its_parts_are_called(part: str, kind: str) -> None:
    model, _ = adapted([module()])
    heard: list[str] = []
    target = [m for m in model.modules() if isinstance(m, ContextModule)][-1].get_submodule(part)
    pre = kind == "pre"
    register = target.register_full_backward_pre_hook if pre else target.register_full_backward_hook
    register(lambda *_: heard.append(part))
    model(IDS).logits.sum().backward()
    assert heard == [part]


def test_what_hooks_are_shown_is_the_content_before_any_merge() -> None:
    """Also behind others that were added, with the log-mass that a hook may ask for."""
    one = [
        {"placement": "outside", "memory": {"kind": "vector"}},
        module(memory={"kind": "matrix", "form": "diagonal"}),
    ]
    model, _ = adapted([module(), *one])

    def shown() -> list[tuple[Tensor, Tensor, Tensor]]:
        captures: list[Any] = []
        found = [m for m in model.modules() if isinstance(m, ContextModule)]
        modules = [m for m in found if m.adds and not m.short]
        hooks = [m.register_forward_hook(lambda m, args, out: captures.append(args[0])) for m in modules]
        with torch.no_grad():
            model(IDS)
        for hook in hooks:
            hook.remove()
        return [(c.output, c.log_mass(), c.key_count()) for c in captures]

    mine = shown()
    with watched(model):
        theirs = shown()
    assert len(mine) == 2 * len(model.model.layers)
    for ours, others in zip(mine, theirs, strict=True):
        for found, expected in zip(ours, others, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_parametrized_matrix_goes_the_long_way() -> None:
    model, _ = adapted([module()])
    before = long_way(model, IDS)
    with torch.no_grad():
        model(IDS)

    memories = [m.get_submodule("memory") for m in model.modules() if isinstance(m, ContextModule)]
    for memory in memories:
        parametrize.register_parametrization(memory, "matrix", Scaled(0.5))
    with counted() as calls:
        halved = model(IDS).logits.detach()
        with torch.no_grad():
            assert torch.equal(model(IDS).logits, halved)
    assert not calls
    assert not torch.allclose(halved, before)
    for memory in memories:
        parametrize.remove_parametrizations(memory, "matrix")
    with torch.no_grad(), counted() as calls:
        found = model(IDS).logits
    assert calls
    torch.testing.assert_close(found, halved, rtol=1e-11, atol=1e-11)


def test_instruments_routing_and_autocast_go_the_long_way() -> None:
    model, _ = adapted([module()], torch.float32)
    with torch.no_grad(), counted() as calls:
        model(IDS)
    assert calls
    with torch.no_grad(), counted() as calls, torch.autocast("cpu", torch.bfloat16):
        under = model(IDS).logits
    assert not calls
    assert torch.isfinite(under).all()
    seen: list[int | None] = []
    controller = model.__dict__["_ctxpeft"]
    controller.watch = lambda layer, capture, part: seen.append(layer)
    with torch.no_grad(), counted() as calls:
        model(IDS)
    controller.watch = None
    assert not calls
    assert seen == list(range(len(model.model.layers)))
    with torch.no_grad(), counted() as calls, ctxpeft.route(model, ["default", None, "default"]):
        routed = model(IDS).logits
    assert not calls
    torch.testing.assert_close(routed[[0, 2]], long_way(model, IDS)[[0, 2]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("one", [module(), GATED, OUTSIDE, {**OUTSIDE, "gate": {"kind": "scalar"}}])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("tokens", [1, 5])
def test_what_another_backend_returns_is_not_written_to(rows: int, tokens: int, one: dict[str, Any]) -> None:
    """Only transformers' own function for sdpa is known to return what nobody else holds."""
    model, _ = adapted([one], torch.float32)
    returned: list[Tensor] = []
    copies: list[Tensor] = []

    def keeps(one: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
        returned.append(q.transpose(1, 2).contiguous())
        copies.append(returned[-1].clone())
        return returned[-1], None

    ALL_ATTENTION_FUNCTIONS.register("keeps", keeps)
    ALL_MASK_ATTENTION_FUNCTIONS.register("keeps", sdpa_mask)
    model.set_attn_implementation("keeps")
    with torch.no_grad(), counted() as calls:
        found = [model(IDS[:rows, :tokens]).logits for _ in range(2)]
    assert len(calls) == (len(returned) if one in (module(), GATED) else 0)
    assert all(map(torch.equal, returned, copies))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "one",
    [
        module(),
        module(memory={"kind": "matrix", "form": "low_rank", "rank": 2}),
        GATED,
        {"placement": "inside", "memory": {"kind": "slots", "count": 3}},
    ],
)
def test_gradients_within_a_pass_that_began_without(one: dict[str, Any]) -> None:
    """A layer that is told to train although the pass is not gets its gradients."""
    model, handle = adapted([one])
    ids = IDS[:, :1]
    with torch.no_grad():
        model(ids)
    layer = model.model.layers[-1]
    plain = layer.forward

    def trains(*args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            return plain(*args, **kwargs)

    layer.forward = trains
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        model(ids)
    hook.remove()
    found = torch.autograd.grad(seen[0].square().sum(), list(handle.parameters())[-1])
    assert found[0].abs().max() > 0

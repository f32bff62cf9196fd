"""The facts that the guide is told are those of the model and the data."""

from __future__ import annotations

import pytest
import torch

from ctxpeft.analysis.facts import facts_of, query_scale
from ctxpeft.testing.tiny import tiny_model
from ctxpeft.training import Bench

TEXTS = [[3, 4, 5, 6], [7, 8]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_the_size_of_queries_follows_their_weights(family: str) -> None:
    """Doubling one layer's query projection doubles the largest size, where no norm comes behind it."""
    model = tiny_model(family)
    before = query_scale(model, TEXTS)
    assert before is not None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj.weight" in name or "c_attn.weight" in name:
                parameter *= 3
    after = query_scale(model, TEXTS)
    assert after is not None
    factor = 1 if family == "qwen3" else 3
    assert after[0] == pytest.approx(factor * before[0], rel=0.35)
    assert (after[1] > 2 * before[1]) is (factor == 3)


def test_the_size_of_queries_is_that_of_a_readable_loop() -> None:
    """Rotation and the split into heads keep the mean square, so a hook at the projection tells it."""
    model = tiny_model("llama")
    squares: dict[int, list[torch.Tensor]] = {}
    hooks = [
        layer.self_attn.q_proj.register_forward_hook(
            lambda module, args, query, place=place: squares.setdefault(place, []).append(
                query.detach().square().mean(dim=-1).flatten()
            )
        )
        for place, layer in enumerate(model.model.layers)
    ]
    for text in TEXTS:
        model(torch.tensor([text]))
    for hook in hooks:
        hook.remove()
    expected = [float(torch.cat(rows).mean().sqrt()) for rows in squares.values()]
    assert query_scale(model, TEXTS) == pytest.approx((min(expected), max(expected)), abs=6e-4)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("llama").train()
    state = {name: p.clone() for name, p in model.named_parameters()}
    random = torch.get_rng_state()
    query_scale(model, TEXTS)
    assert model.training
    assert all(p.requires_grad and torch.equal(p, state[name]) for name, p in model.named_parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_what_is_not_there_is_not_known() -> None:
    assert query_scale(tiny_model("llama"), []) is None


def test_facts_of_a_bench(bench: Bench) -> None:
    found = facts_of([bench, bench])
    assert found.examples == 2 * len(bench.task.train)
    lengths = sorted(len(e) for e in bench.train)
    assert found.input_length in (lengths[(len(lengths) - 1) // 2], lengths[len(lengths) // 2])
    assert found.gqa == bench.base.gqa
    assert found.query_scale is not None
    assert 0 < found.query_scale[0] <= found.query_scale[1]

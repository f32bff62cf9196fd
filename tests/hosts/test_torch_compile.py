"""torch.compile: one graph without breaks, the values and gradients of eager, no recompilation for other rows."""

import contextlib

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import DynamicCache, StaticCache

import ctxpeft
from ctxpeft.testing.tiny import perturb, tiny_model

from .cases import MIXED, VARIANTS

SCOPED = {
    "name": "scoped",
    "modules": [
        {"placement": "outside", "site": site, "memory": {"kind": "vector"}, "scope": {"tokens": tokens}}
        for site, tokens in (("ffn", "prompt"), ("residual", "generated"))
    ],
}
BOTH = {"name": "both", "modules": [MIXED["modules"][0], MIXED["modules"][2]]}
BEHIND = {"name": "behind", "modules": [{**MIXED["modules"][2], "projected": False}]}
CASES = {
    **VARIANTS,
    "scoped": SCOPED,
    "both": BOTH,
    "behind": BEHIND,
    "prompt-tuning": "prompt-tuning",
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def tokens(batch=2):
    return torch.randint(3, 61, (batch, 9), generator=torch.Generator().manual_seed(1))


def adapted(family, *variants):
    layers = {"n_layer": 1} if family == "gpt2" else {"num_hidden_layers": 1}
    model = tiny_model(family, **layers)
    handles = [ctxpeft.attach(model, v, name=f"a{i}", seed=i) for i, v in enumerate(variants)]
    for handle in handles:
        perturb(handle)
    return model, handles


def compiled(model, backend="eager"):
    return torch.compile(model, backend=backend, fullgraph=True)


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("llama", "mixed"),
        ("llama", "wide"),
        ("llama", "scoped"),
        ("gemma3_text", "prefix-tuning"),
        ("gpt2", "mixed"),
        ("gpt2", "behind"),
        ("llama", "prompt-tuning"),
    ],
)
def test_one_graph_and_the_values_of_eager(family, variant):
    """`fullgraph=True` raises on a break. A second call, and one with other values, find the graph that is there.

    torch compiles the hooks of the outermost module by themselves: where virtual tokens are read there, that is a graph
    of its own. GPT-2 computes its loss with a logged warning, which breaks the graph of the base too: it is called
    without labels.
    """
    model, (handle,) = adapted(family, CASES[variant])
    ids = tokens()
    labels = {} if family == "gpt2" else {"labels": ids.masked_fill(torch.arange(9) < 5, -100)}
    function = compiled(model)
    for _ in range(2):
        perturb(handle, std=0.1)
        expected = model(ids, **labels)
        out = function(ids, **labels)
        assert torch.allclose(out.logits, expected.logits, atol=1e-4)
        assert not labels or torch.allclose(out.loss, expected.loss, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == (2 if variant == "prompt-tuning" else 1)
    assert not counters["graph_break"]


@pytest.mark.parametrize("variant", ["mixed", "wide"])
def test_gradients_of_eager(variant):
    """Through AOT autograd, the backward graph included."""
    model, (handle,) = adapted("llama", CASES[variant])
    ids = tokens()
    model(ids, labels=ids).loss.backward()
    expected = [p.grad.clone() for p in handle.parameters()]
    model.zero_grad()
    compiled(model, "aot_eager")(ids, labels=ids).loss.backward()
    for parameter, gradient in zip(handle.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_inductor_computes_the_same():
    model, _ = adapted("llama", BOTH)
    ids = tokens()
    with torch.no_grad():
        out = compiled(model, "inductor")(ids).logits
        assert torch.allclose(out, model(ids).logits, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("variant", ["both", "wide"])
def test_decoding_steps_share_one_graph(variant):
    """A static cache, one token a step: after the first step nothing is compiled, and no graph breaks in any.

    Without `fullgraph`, which the hooks of the outermost module do not heed: the length that the cache counts on the
    device must stay a tensor there too.
    """
    model, _ = adapted("llama", CASES[variant])
    ids = tokens()
    function = torch.compile(model, backend="eager")
    with torch.no_grad():
        whole = model(ids).logits
        cache = StaticCache(model.config, max_cache_len=9)
        model(ids[:, :3], past_key_values=cache)
        for step in range(3, 9):
            out = function(ids[:, step : step + 1], past_key_values=cache)
            assert torch.allclose(out.logits[:, 0], whole[:, step], atol=2e-4)
            if step == 4:
                graphs = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]


def test_other_rows_are_no_recompilation():
    """Rows are data. Another set of adapters is compiled once, and coming back to it finds its graph."""
    model, _ = adapted("llama", "prefix-tuning", BOTH, "prefix-tuning-plus")
    ids, function = tokens(4), compiled(model)

    def graphs(*, rows=None, active=None):
        with torch.no_grad(), ctxpeft.route(model, rows) if rows else contextlib.nullcontext():
            if active is not None:
                ctxpeft.activate(model, active)
            assert torch.allclose(function(ids).logits, model(ids).logits, atol=1e-4)
        return counters["stats"]["unique_graphs"]

    first = graphs(rows=["a0", "a1", None, "a0"])
    for rows in (["a1", "a0", "a0", None], ["a1", "a1", "a0", "a0"], [None, None, "a0", "a1"]):
        assert graphs(rows=rows) == first
    assert graphs(rows=["a0", "a2", "a1", "a0"]) == first + 1
    assert graphs(rows=["a1", "a0", None, "a0"]) == first + 1
    second = graphs(active=["a0"])
    assert graphs(active=["a1"]) == second + 1
    assert graphs(active=["a0"]) == graphs(active=["a1"]) == second + 1


def test_hotswap_is_no_recompilation(tmp_path):
    """Other values of the same spec, in place: the graph stays, the answer is that of the other adapter."""
    other, (theirs,) = adapted("llama", BOTH)
    perturb(theirs, seed=7)
    theirs.save(tmp_path)
    model, (handle,) = adapted("llama", BOTH)
    function = compiled(model)
    with torch.no_grad():
        before = function(tokens()).logits
        handle.hotswap(tmp_path)
        after = function(tokens()).logits
        expected = other(tokens()).logits
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(after, expected, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 1


def test_disabled_and_detached():
    model, (handle,) = adapted("llama", BOTH)
    ids, function = tokens(), compiled(model)
    base = adapted("llama")[0](ids).logits
    assert not torch.allclose(function(ids).logits, base, atol=1e-3)
    with handle.disabled():
        assert torch.allclose(function(ids).logits, base, atol=1e-5)
    handle.detach()
    assert torch.allclose(function(ids).logits, base, atol=1e-5)


@pytest.mark.parametrize("memory", [{}, {"per": "kv_head"}, {"form": "low_rank", "rank": 2}])
@pytest.mark.parametrize("length", [1, 9])
def test_reading_without_gradients_is_one_graph(memory, length):
    """What is added to the attention's output is added to it as to a compiler's own tensor: prompts, and a token."""
    plain = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix", **memory}}
    model, _ = adapted("llama", {"name": "plain", "modules": [plain]})
    ids = tokens()[:, :length]
    function = compiled(model, "aot_eager")
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        for _ in range(2):
            torch.testing.assert_close(function(ids, use_cache=False).logits, expected)
    assert not counters["graph_break"]


COMPETING = {
    "slots": {"placement": "inside", "memory": {"kind": "slots", "count": 3}},
    "length": {"placement": "inside", "merge": "compete_length", "memory": {"kind": "slots", "count": 3}},
    "mass": {"placement": "inside", "feature_map": {"kind": "elu_plus_one"}, "memory": {"kind": "matrix"}},
}


@pytest.mark.parametrize("kind", COMPETING)
@pytest.mark.parametrize("decodes", [True, False])
def test_no_length_is_a_graph_of_its_own(kind, decodes):
    """Neither those of a cache that grows nor those of prompts, also where eager takes another way for long ones."""
    model = tiny_model("llama", num_hidden_layers=1, max_position_embeddings=1200)
    perturb(ctxpeft.attach(model, {"name": "competing", "modules": [COMPETING[kind]]}, seed=0))
    function = torch.compile(model, backend="eager", dynamic=True)
    graphs = []
    with torch.no_grad():
        for length in (5, 6, 9, 40, 1100):
            ids = torch.randint(3, 61, (2, length), generator=torch.Generator().manual_seed(1))
            cache = DynamicCache(config=model.config)
            if decodes:
                model(ids, past_key_values=cache)
            last = ids[:, :1] if decodes else ids
            found = function(last, past_key_values=cache).logits
            if decodes:
                cache.crop(-1)
            else:
                cache = DynamicCache(config=model.config)
            torch.testing.assert_close(found, model(last, past_key_values=cache).logits, atol=2e-4, rtol=1e-4)
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1:] == graphs[1:2] * 4

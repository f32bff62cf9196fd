"""Nothing large is made that the frozen model does not make, the cache is its cache, and a compiler finds one graph.

With `tests/analysis/test_cost.py`, which counts FLOPs and bytes, this guards the speed without measuring time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_compiler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

import ctxpeft
from ctxpeft.shipped import shipped_names
from ctxpeft.testing.tiny import TinyTokenizer, perturb, tiny_model

BATCH, HEADS, KV_HEADS, WIDTH, TOKENS, SLOTS = 3, 4, 2, 8, 23, 7
PREFIX = {
    "name": "prefix",
    "modules": [{"placement": "inside", "memory": {"kind": "slots", "count": SLOTS}}],
}
MAIN: dict[str, Any] = {
    "length-compensated": "length-compensated",
    "llama-adapter": "llama-adapter",
    "mam-adapter": "mam-adapter",
    "ntk-attention": "ntk-attention",
    "prefix": PREFIX,
    "prefix-tuning-mlp": "prefix-tuning-mlp",
    "prefix-tuning-plus": "prefix-tuning-plus",
    "prefix-tuning-plus-gated": "prefix-tuning-plus-gated",
    "prefix-tuning-plus-log-mass": "prefix-tuning-plus-log-mass",
    "prompt-tuning": "prompt-tuning",
    "unipelt": "unipelt",
}


CHANGE_KEYS = ("adept", "dept", "ia3", "lora-all", "lora-qv")
"""Those whose first layer already has other keys and values, by embeddings or by projections."""
REST = sorted(set(shipped_names("variants")) - set(MAIN))


class Shapes(TorchDispatchMode):
    """The shape of every tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen.update(tuple(t.shape) for t in tree_leaves(out) if isinstance(t, Tensor))
        return out


def adapted(variant: Any, layers: int = 1) -> tuple[Any, Any]:
    model = tiny_model(num_hidden_layers=layers)
    handle = ctxpeft.attach(model, variant, seed=0, tokenizer=TinyTokenizer())
    perturb(handle)
    return model, handle


def tokens() -> Tensor:
    return torch.randint(3, 61, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))


def shapes_of_a_step(model: Any, mask: Tensor | None = None) -> Counter[tuple[int, ...]]:
    ids = tokens()
    with Shapes() as shapes:
        model(ids, labels=ids, attention_mask=mask, use_cache=False).loss.backward()
    return shapes.seen


def squares(shapes: Counter[tuple[int, ...]]) -> Counter[tuple[int, ...]]:
    """Tensors as large as all scores of all heads."""
    return Counter(
        {
            s: n
            for s, n in shapes.items()
            if s.count(TOKENS) >= 2 and torch.Size(s).numel() > BATCH * TOKENS**2
        }
    )


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", [*MAIN, *REST])
def test_no_score_matrix(name: str, padded: bool) -> None:
    """Of a training step, forward and backward; a padding mask alone is B x 1 x T x T, in the frozen model too."""
    mask = torch.ones(BATCH, TOKENS, dtype=torch.long) if padded else None
    if mask is not None:
        mask[0, :5] = 0
    model, handle = adapted(MAIN.get(name, name))
    mine = squares(shapes_of_a_step(model, mask))
    handle.detach()
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: out.requires_grad_())
    assert not mine - squares(shapes_of_a_step(model, mask))


def test_slots_are_not_repeated_for_heads_or_rows() -> None:
    """Keys and values of slots stay those of the kv heads: only their gradient has one copy a row, to be summed."""
    model, _ = adapted(PREFIX)
    seen = shapes_of_a_step(model)
    assert not any(s[-2:] == (SLOTS, WIDTH) and HEADS in s for s in seen)


@pytest.mark.parametrize("name", [*MAIN, *REST])
def test_the_cache_is_that_of_the_frozen_model(name: str) -> None:
    """As many tokens, and the first layer's keys and values bit for bit (later layers read what the adapter wrote)."""
    model, handle = adapted(MAIN.get(name, name), layers=2)
    ids, caches = tokens(), []
    for _ in range(2):
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            for part in (ids[:, :-2], ids[:, -2:-1], ids[:, -1:]):
                model(part, past_key_values=cache)
        caches.append(cache)
        if handle.attached:
            handle.detach()
    for mine, theirs in zip(caches[0].layers, caches[1].layers, strict=True):
        assert mine.keys.shape == theirs.keys.shape == (BATCH, KV_HEADS, TOKENS, WIDTH)
        assert mine.values.shape == theirs.values.shape
    if name in CHANGE_KEYS:
        return
    assert torch.equal(caches[0].layers[0].keys, caches[1].layers[0].keys)
    assert torch.equal(caches[0].layers[0].values, caches[1].layers[0].values)


@pytest.mark.parametrize("name", [*MAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def test_compiled_as_one_graph_without_scores(name: str) -> None:
    """`fullgraph=True` raises on a break; the graphs of forward and backward hold no score matrix either."""
    torch._dynamo.reset()
    seen: Counter[tuple[int, ...]] = Counter()

    @make_boxed_compiler
    def look(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        for node in graph.graph.nodes:
            values = tree_leaves(node.meta.get("val")) if node.op == "call_function" else []
            seen.update(tuple(v.shape) for v in values if isinstance(v, Tensor))
        return graph.forward

    model, _ = adapted(MAIN.get(name, name))
    ids = tokens()
    expected = model(ids, labels=ids).loss
    function = torch.compile(model, backend=aot_autograd(fw_compiler=look), fullgraph=True)
    loss = function(ids, labels=ids).loss
    loss.backward()
    torch._dynamo.reset()
    assert torch.allclose(loss, expected, atol=1e-5)
    assert seen
    assert not squares(seen)

"""The cost model says what torch counts on the real model: FLOPs, bytes kept for backward, the cache, the file."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import DynamicCache

import ctxpeft
from ctxpeft.adapters.layout import WEIGHTS
from ctxpeft.analysis.cost import Cost, measure
from ctxpeft.blocks import products
from ctxpeft.errors import HostError
from ctxpeft.hosts.flops import flop_counter
from ctxpeft.hosts.passes import if_attached
from ctxpeft.shipped import shipped_names
from ctxpeft.testing.tiny import TinyTokenizer, tiny_model

LAYERS, HEADS, KV_HEADS, WIDTH, HIDDEN = 2, 4, 2, 8, 32
BATCH, TOKENS = 3, 16
MAIN = [
    "gated-sdpa",
    "length-compensated",
    "llama-adapter",
    "lora-qv",
    "mam-adapter",
    "ntk-attention",
    "p-tuning-v2",
    "parallel-adapter-ffn",
    "prefix-tuning",
    "prefix-tuning-mlp",
    "prefix-tuning-plus",
    "prefix-tuning-plus-gated",
    "prefix-tuning-plus-kv-shared",
    "prefix-tuning-plus-low-rank",
    "prefix-tuning-plus-unrotated",
    "prompt-tuning",
    "reft",
    "unipelt",
]


def on_meta(model: Any) -> Any:
    with torch.device("meta"):
        return type(model)(copy.deepcopy(model.config))


def predicted(variant: str | dict[str, Any], family: str = "llama", **options: Any) -> Cost:
    return measure(on_meta(tiny_model(family, **options)), ctxpeft.load_variant(variant), context=TOKENS)


def counted(model: Any, accelerator: bool = True) -> tuple[int, int, int, int, int]:
    """FLOPs forward, of a training step and of a decoding step, bytes kept for backward (as an accelerator keeps them,
    or as this CPU does), bytes cached."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    ids = torch.randint(3, 61, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    hook = model.get_input_embeddings().register_forward_hook(lambda m, args, out: out.requires_grad_())
    prompt = if_attached(model, torch.zeros_like(ids, dtype=torch.bool))
    elsewhere = patch.object(products, "_kept", lambda *_: False) if accelerator else contextlib.nullcontext()
    with prompt, elsewhere, flop_counter() as counter, saved_tensors_hooks(keep, lambda t: t):
        loss = model(input_ids=ids, use_cache=False).logits.sum()
        forward = counter.get_total_flops()
        saved = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in parameters)
        loss.backward()
        training = counter.get_total_flops()
    hook.remove()
    cache = DynamicCache(config=model.config)
    trained = [p for p in model.parameters() if p.requires_grad]
    for (
        parameter
    ) in trained:  # torch's counter refuses a trained parameter as a module's input without gradients
        parameter.requires_grad_(False)
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        with flop_counter() as counter:
            model(input_ids=ids[:, :1], past_key_values=cache)
    for parameter in trained:
        parameter.requires_grad_(True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    return forward, training, counter.get_total_flops(), saved, held


@pytest.fixture(scope="module")
def frozen() -> tuple[int, ...]:
    model = tiny_model()
    model.requires_grad_(False)
    return counted(model)


@pytest.mark.parametrize("name", MAIN)
def test_the_real_model_is_counted_the_same(name: str, frozen: tuple[int, ...], tmp_path: Path) -> None:
    """By torch's FlopCounterMode, in a real pass on a real model, against the model without weights."""
    model = tiny_model()
    handle = ctxpeft.attach(model, name, seed=0, tokenizer=TinyTokenizer())
    extra = [a - b for a, b in zip(counted(model), frozen, strict=True)]
    cost = measure(on_meta(model), handle.variant, context=TOKENS)
    tokens = BATCH * TOKENS
    assert extra[0] == cost.per_token.forward * tokens + cost.per_pass.forward
    assert extra[1] == cost.per_token.training * tokens + cost.per_pass.training
    assert extra[2] == cost.per_token.decode * BATCH + cost.per_pass.decode
    assert extra[3] == cost.saved_per_token * tokens + cost.saved_per_pass
    assert extra[4] == cost.cache == 0
    assert cost.base_cache == LAYERS * 2 * KV_HEADS * WIDTH * 4
    assert cost.trainable == handle.num_parameters()
    assert cost.deployed == handle.num_parameters("deployed")
    handle.save(tmp_path)
    assert cost.file == (tmp_path / WEIGHTS).stat().st_size


def test_a_cpu_keeps_what_the_map_makes_besides() -> None:
    model = tiny_model()
    ctxpeft.attach(model, "prefix-tuning-plus", seed=0)
    saved = [counted(model, accelerator)[3] for accelerator in (False, True)]
    assert saved[0] - saved[1] == BATCH * TOKENS * LAYERS * HEADS * WIDTH * 4


@pytest.mark.parametrize("name", sorted(set(shipped_names("variants")) - set(MAIN)))
def test_every_shipped_variant_is_counted(name: str) -> None:
    cost = predicted(name, num_hidden_layers=1)
    assert cost.trainable > 0
    assert cost.cache == 0
    assert cost.per_token.training >= cost.per_token.forward >= 0


def test_a_matrix_costs_its_products() -> None:
    """phi(q)^T M for every head and layer: once forward, twice backward."""
    each = 2 * LAYERS * HEADS * WIDTH * WIDTH
    cost = predicted("prefix-tuning-plus")
    assert (cost.per_token.forward, cost.per_token.training, cost.per_token.decode) == (each, 3 * each, each)
    assert cost.per_pass == type(cost.per_pass)(0, 0, 0)


def test_slots_cost_their_scores_and_reads() -> None:
    """32 scores and a read of 32 values for every query head: no slot is asked twice, and nothing grows with the
    context."""
    each = 4 * LAYERS * HEADS * WIDTH * 32
    cost = predicted("prefix-tuning")
    assert (cost.per_token.forward, cost.per_token.training, cost.per_token.decode) == (each, 3 * each, each)
    assert cost.per_pass == type(cost.per_pass)(0, 0, 0)
    longer = measure(on_meta(tiny_model()), ctxpeft.load_variant("prefix-tuning"), context=2 * TOKENS)
    assert longer.per_token == cost.per_token
    assert longer.saved_per_token == cost.saved_per_token


def test_the_base_costs_its_weights_and_its_attention() -> None:
    model = tiny_model()
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    attention = 4 * LAYERS * HEADS * WIDTH * TOKENS
    cost = predicted("prefix-tuning-plus")
    assert cost.base.forward == 2 * weights + attention
    assert cost.base.training == 4 * weights + 3 * attention
    assert cost.base.decode == 2 * weights + attention + attention // TOKENS


def test_modules_are_counted_one_by_one() -> None:
    cost = predicted("mam-adapter")
    assert [part.name for part in cost.parts] == ["modules[0] inside slots", "modules[1] outside matrix"]
    assert sum(part.forward for part in cost.parts) == cost.per_token.forward
    assert sum(part.trainable for part in cost.parts) == cost.trainable


def test_halves_keep_half_the_bytes_and_the_adapter_its_own() -> None:
    model = on_meta(tiny_model())
    whole = measure(model, ctxpeft.load_variant("prefix-tuning"), context=TOKENS)
    half = measure(model.to(torch.bfloat16), ctxpeft.load_variant("prefix-tuning"), context=TOKENS)
    assert half.base_cache == whole.base_cache // 2
    assert half.file == whole.file
    assert half.per_token == whole.per_token


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3_text", "mistral", "qwen3"])
@pytest.mark.parametrize("name", ["prefix-tuning", "prefix-tuning-plus-unrotated", "llama-adapter"])
def test_other_hosts(family: str, name: str) -> None:
    cost = predicted(name, family)
    assert 0 < cost.per_token.forward < cost.per_token.training
    assert cost.cache == 0


def test_a_loaded_model_is_left_as_it_was() -> None:
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids = torch.arange(3, 9)[None]
    expected = model(ids).logits
    cost = measure(model, ctxpeft.load_variant("llama-adapter"), context=TOKENS)
    assert cost == predicted("llama-adapter")
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model(ids).logits, expected)
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_that_looks_at_values_is_named() -> None:
    class Looks(type(tiny_model())):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, **options: Any) -> Any:
            assert input_ids[0, 0].item() >= 0
            return super().forward(input_ids, **options)

    looks = Looks(tiny_model().config)
    with pytest.raises(HostError, match="Looks cannot be counted without its weights"):
        measure(looks, ctxpeft.load_variant("prefix-tuning"))

"""How the shipped slots begin: told apart by the model's queries, and quiet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

import ctxpeft
from ctxpeft.data import mini_model_path
from ctxpeft.shipped import shipped_names

TEXT = "Return the sum of two numbers that are given as text; once upon a time there was a king."


def begins_at_random(name: str) -> bool:
    """Whether keys asked by a softmax are drawn and trained; a positive kernel tells no keys apart at the start."""
    memories = [module.memory.model_dump() for module in ctxpeft.load_variant(name).modules]
    return any(
        m["kind"] == "slots"
        and m["score"] in ("softmax", "norga")
        and m["parameterization"]["kind"] == "direct"
        and m["init"]["kind"] == "normal"
        for m in memories
    )


DRAWN = [name for name in shipped_names("variants") if begins_at_random(name)]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(mini_model_path(), local_files_only=True).eval()


@pytest.fixture(scope="module")
def ids() -> Tensor:
    tokenizer = AutoTokenizer.from_pretrained(mini_model_path(), local_files_only=True)
    found: Tensor = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    return found


def alikeness(model: Any, ids: Tensor, variant: Any) -> float:
    """The mean cosine between the first gradients of any two slots' values."""
    handle = ctxpeft.attach(model, variant, seed=0)
    try:
        model(input_ids=ids, labels=ids).loss.backward()
        directions = [
            functional.normalize(p.grad, dim=-1)
            for name, p in model.named_parameters()
            if name.endswith("slots.value") and p.grad is not None
        ]
        cosines = [d @ d.mT for d in directions]
        count = cosines[0].shape[-1]
        pairs = [(c.sum((-1, -2)) - count).mean() / (count * (count - 1)) for c in cosines]
        return float(torch.stack(pairs).mean())
    finally:
        handle.detach()


@pytest.mark.parametrize("name", DRAWN)
def test_slots_learn_different_things_from_the_first_step(model: nn.Module, ids: Tensor, name: str) -> None:
    """Keys far smaller than the model's own get the same weight from every query, and so the same gradient."""
    data = ctxpeft.load_variant(name).to_dict()
    assert alikeness(model, ids, data) < 0.95
    data["modules"][0]["memory"]["init"] = {"kind": "normal", "std": 0.02}
    assert alikeness(model, ids, data) > 0.99


def test_prefix_tuning_begins_near_the_base(model: Any, ids: Tensor) -> None:
    """Values at zero only take weight from the content; random ones as large as the keys would speak."""
    losses = {}
    for values in ("zeros", "normal"):
        data = ctxpeft.load_variant("prefix-tuning").to_dict()
        if values == "normal":
            data["modules"][0]["memory"]["value_init"] = data["modules"][0]["memory"]["init"]
        handle = ctxpeft.attach(model, data, seed=0)
        with torch.no_grad():
            losses[values] = float(model(input_ids=ids, labels=ids).loss)
            with handle.disabled():
                losses["base"] = float(model(input_ids=ids, labels=ids).loss)
        handle.detach()
    assert losses["zeros"] - losses["base"] < 0.2 < losses["normal"] - losses["base"]

"""The shipped model: offline, small, with a tokenizer that loses nothing, indifferent to the side of padding."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctxpeft.data import mini_model_path

TEXTS = ["Once upon a time there was a king", "Return a list of", "é — naïve 東京 \t\n\n  x\x00\u200d🙂"]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(mini_model_path(), local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(mini_model_path(), local_files_only=True)


def test_size_is_what_the_card_says(model: Any) -> None:
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 2_312_640
    assert f"{parameters:,} parameters" in (mini_model_path() / "README.md").read_text(encoding="utf-8")
    assert (mini_model_path() / "model.safetensors").stat().st_size < 10_000_000


def test_config_has_grouped_queries_and_tied_embeddings(model: Any) -> None:
    config = model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (6, 2, 32)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_special_tokens(model: Any, tokenizer: Any) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (0, 1, 2)
    ids = tokenizer("hello")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert len(tokenizer) == model.config.vocab_size == 2048


@pytest.mark.parametrize("text", [*TEXTS, bytes(range(1, 256)).decode("latin-1")])
def test_tokenizer_loses_no_byte(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_padding_side_does_not_matter(model: Any, tokenizer: Any) -> None:
    logits = {}
    for side in ("left", "right"):
        batch = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
        mask = batch["attention_mask"]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            logits[side] = model(**batch, position_ids=positions).logits[mask.bool()]
    torch.testing.assert_close(logits["left"], logits["right"], rtol=1e-4, atol=1e-4)


def test_generates_the_same_alone_and_in_a_padded_batch(model: Any, tokenizer: Any) -> None:
    def continuation(texts: list[str]) -> list[str]:
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        ids = model.generate(**batch, max_new_tokens=12, do_sample=False)
        return [str(text) for text in tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :])]

    assert continuation(TEXTS[:2])[1] == continuation(TEXTS[1:2])[0]


def test_it_learned_english(model: Any, tokenizer: Any) -> None:
    """Words in order cost far less than the same words shuffled."""
    texts = [
        "The little girl ran into the garden to see her mother.",
        "mother garden. the her see to ran girl The into",
    ]
    losses = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses.append(model(input_ids=ids, labels=ids).loss.item())
    assert losses[0] < losses[1] - 1


def test_evaluation_beats_compressors_and_counting() -> None:
    evaluation = json.loads((mini_model_path() / "evaluation.json").read_text(encoding="utf-8"))
    for stream, measured in evaluation["bits_per_byte"].items():
        others = [value for method, value in measured.items() if method != "ctxpeft-mini"]
        assert len(others) == 3
        assert measured["ctxpeft-mini"] < min(others), stream
    for task, found in evaluation["probes"].items():
        assert found["trained"]["test"] > found["random_init"]["test"], task

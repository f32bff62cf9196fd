"""The trie and the cache give what one sequence a label gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel

import ctxpeft
from ctxpeft.tasks import label_scores, naive_scores
from ctxpeft.tasks._trie import label_trie

EOS = (1,)
PROMPTS = [(0, 5, 6, 7), (0, 9), (0, 11, 12, 13, 14, 15, 16), (0, 3, 4), (0, 8, 8, 8, 8)]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    loaded: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(tiny_model)
    return loaded.eval()


LABELS = st.lists(
    st.lists(st.integers(2, 6), min_size=1, max_size=4).map(tuple), min_size=2, max_size=8, unique=True
)


@settings(max_examples=15)
@given(sequences=LABELS, rows=st.integers(1, 4))
def test_equal_to_naive(model: PreTrainedModel, sequences: list[tuple[int, ...]], rows: int) -> None:
    label_ids = {str(i): ids for i, ids in enumerate(sequences)}
    fast = label_scores(model, PROMPTS, label_ids, EOS, pad=1, rows=rows, tokens=40)
    slow = naive_scores(model, PROMPTS, label_ids, EOS, pad=1)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("variant", ["prefix-tuning", "prefix-tuning-plus", "length-compensated"])
def test_equal_to_naive_with_an_adapter(model: PreTrainedModel, variant: str) -> None:
    label_ids = {"a": (2, 3, 4), "b": (2, 3), "c": (5,), "d": (2, 6)}
    before = label_scores(model, PROMPTS, label_ids, EOS, pad=1)
    handle = ctxpeft.attach(model, variant, seed=3)
    try:
        with torch.no_grad():
            for parameter in handle.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
        fast = label_scores(model, PROMPTS, label_ids, EOS, pad=1)
        slow = naive_scores(model, PROMPTS, label_ids, EOS, pad=1)
    finally:
        handle.detach()
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fast, before)
    assert torch.equal(label_scores(model, PROMPTS, label_ids, EOS, pad=1), before)


def test_single_token_labels_run_the_prompt_only(model: PreTrainedModel) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = model.register_forward_pre_hook(count)
    try:
        scores = label_scores(model, PROMPTS, {"a": (2,), "b": (3,), "c": (4,)}, EOS, pad=1)
    finally:
        hook.remove()
    assert calls == 1
    assert scores.shape == (5, 3)


@given(LABELS)
def test_the_trie_predicts_every_token_once(sequences: list[tuple[int, ...]]) -> None:
    trie = label_trie({str(i): ids for i, ids in enumerate(sequences)}, EOS)
    for ids, steps in zip(sequences, trie.steps, strict=True):
        assert tuple(s.token for s in steps)[: len(ids)] == ids
        for depth, step in enumerate(steps):
            assert step.depth == depth
            if depth:
                assert trie.paths[step.path][:depth] == tuple(s.token for s in steps)[:depth]
    assert not any(a != b and b[: len(a)] == a for a in trie.paths for b in trie.paths)


def test_a_label_that_begins_another_ends_with_the_end_token() -> None:
    trie = label_trie({"a": (2,), "b": (2, 3)}, EOS)
    assert [s.token for s in trie.steps[0]] == [2, 1]
    assert [s.token for s in trie.steps[1]] == [2, 3]
    with pytest.raises(ValueError, match="begins another"):
        label_trie({"a": (2,), "b": (2, 3)})

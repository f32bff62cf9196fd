"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctxpeft.tasks import Encoder, build_task, can_end, evaluate, load_task
from ctxpeft.tasks._metrics import classification_records, summarise_classification
from tests.tasks.tiny import write_jsonl


def test_classification_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    labels = ["a", "b", "c", "d"]
    targets = [labels[i] for i in random.integers(0, 3, 50)]
    scores = random.normal(size=(50, 4)) * 3 - 20
    records = classification_records([str(i) for i in range(50)], targets, labels, scores, [1, 2, 3, 1])
    found = summarise_classification(records, labels)
    predicted = [labels[i] for i in scores.argmax(1)]
    p = np.exp(scores - scores.max(1, keepdims=True))
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert found.metrics["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert found.metrics["loss"] == pytest.approx(
        log_loss(targets, p / p.sum(1, keepdims=True), labels=labels)
    )
    assert sum(c["count"] for c in found.per_class.values()) == 50
    assert records[0].token_loss == pytest.approx(
        -scores[0, labels.index(targets[0])] / [1, 2, 3, 1][labels.index(targets[0])]
    )


@pytest.mark.parametrize("words", [{}, {"fruit": "a", "metal": "ab", "animal": "a b"}])
def test_the_loss_of_true_answers_needs_no_other_label(
    tiny_model: Path, tiny_task: dict[str, str], words: dict[str, str]
) -> None:
    """Also where a label begins another one and ends with the end-of-text token."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    task = build_task(load_task({"template": "{text} Label:", "label_words": words, **tiny_task}))
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny_model), task)
    whole = evaluate(model, encoder, task.test, 0)
    answers = evaluate(model, encoder, task.test, 0, labels=False)
    assert answers.metrics == {"token_loss": pytest.approx(whole.metrics["token_loss"], rel=1e-5)}
    assert (answers.primary, answers.greater_is_better) == ("token_loss", False)
    for one, other in zip(answers.records, whole.records, strict=True):
        assert (one.id, one.token_loss) == (other.id, pytest.approx(other.token_loss, rel=1e-5))


def test_token_loss_of_text_is_the_models_own(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [{"text": "we saw a heron " * n + str(n)} for n in range(1, 12)]
    task = build_task(load_task({"train": str(write_jsonl(tmp_path / "d.jsonl", rows)), "max_length": 128}))
    found = evaluate(model, Encoder(tokenizer, task), task.train)
    nats, tokens, size = 0.0, 0, 0
    for example in task.train:
        ids = torch.tensor([[*tokenizer(example.text)["input_ids"], 1]])
        with torch.no_grad():
            nats += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
        size += len(example.text.encode())
    assert found.metrics["token_loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found.metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert len(found.records) == len(task.train)


def test_can_end(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert can_end(model, tokenizer)
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = model.get_output_embeddings().weight[1] * 1.001
    assert not can_end(model, tokenizer)

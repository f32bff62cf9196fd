"""Multiple choice by likelihood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctxpeft.errors import DataError
from ctxpeft.tasks import Encoder, build_task, evaluate, load_task
from ctxpeft.tasks._choices import read_choices, unfolded
from ctxpeft.tasks._files import Row
from tests.tasks.tiny import write_jsonl

LISTED = {"prompt": "what barks", "choices": ["a fox", "a plum", "tin"], "answer": 0}
HUB = {
    "prompt": "what barks",
    "choices": {"text": ["a fox", "a plum", "tin"], "label": ["A", "B", "C"]},
    "answer": "A",
}
ADAPTERS = {
    "instruction": "Please choose the correct answer to the question: what barks\n\nAnswer1: a fox Answer2: a plum "
    "Answer3: tin\n\nAnswer format: answer1/answer2/answer3",
    "input": "",
    "output": "the correct answer is answer1",
    "answer": "answer1",
}


def _row(values: dict[str, Any]) -> Row:
    return next(unfolded([Row("f", "line", 1, values)], None))


@pytest.mark.parametrize(
    "values", [LISTED, HUB, ADAPTERS, {**LISTED, "answer": "a fox"}, {**LISTED, "answer": "a"}]
)
def test_every_layout_gives_the_same_choices(values: dict[str, Any]) -> None:
    row = _row(values)
    assert read_choices(row, "choices", "answer") == (("a fox", "a plum", "tin"), "a fox")
    assert row.values["prompt"] == "what barks"


def test_numbers_as_labels_and_as_texts() -> None:
    arc = {"choices": {"text": ["3", "1", "2"], "label": ["1", "2", "3"]}, "answer": "2"}
    assert read_choices(_row(arc), "choices", "answer")[1] == "1"
    listed = {"choices": ["3", "1", "2"], "answer": "2"}
    assert read_choices(_row(listed), "choices", "answer")[1] == "2"
    assert read_choices(_row({**listed, "choices": ["x", "y", "z"]}), "choices", "answer")[1] == "z"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"choices": ["one"], "answer": 0}, "no list of two choices"),
        ({"choices": "a, b", "answer": 0}, "no list of two choices"),
        ({"choices": ["a", " "], "answer": 0}, "an empty choice"),
        ({"choices": ["a", "b"], "answer": 2}, "is 2, which is none of a, b"),
        ({"choices": ["a", "b"], "answer": None}, "is None"),
        ({"choices": {"text": ["a", "b"], "label": ["A"]}, "answer": "A"}, "2 texts and 1 labels"),
        ({"choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": "0"}, "none of A, B"),
    ],
)
def test_bad_rows_are_one_sentence(values: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=f"f line 1: .*{told}"):
        read_choices(_row(values), "choices", "answer")


def test_scores_are_those_of_one_sequence_a_choice(tiny_model: Path, tmp_path: Path) -> None:
    words = ["a fox", "a plum near the old tin", "tin", "some red plum"]
    rows = [
        {"prompt": "we saw " + "it " * (i % 7), "choices": words[: 2 + i % 3], "answer": i % 2}
        for i in range(14)
    ]
    file = write_jsonl(tmp_path / "d.jsonl", rows)  # type: ignore[arg-type]
    task = build_task(load_task({"kind": "multiple_choice", "test": [str(file)]}))
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found = evaluate(model, Encoder(tokenizer, task), task.test)
    hits = normalised = 0
    for example, record in zip(task.test, found.records, strict=True):
        prompt = tokenizer(f"Question: {example.fields['prompt']}\nAnswer:")["input_ids"]
        scores = []
        for choice in example.choices:
            ids = tokenizer(f"Question: {example.fields['prompt']}\nAnswer: {choice}")["input_ids"]
            with torch.no_grad():
                logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(logp[k - 1, ids[k]]) for k in range(len(prompt), len(ids))))
        right = example.choices.index(example.target)
        best = max(range(len(scores)), key=scores.__getitem__)
        sizes = [len(c.encode()) for c in example.choices]
        by_size = max(range(len(scores)), key=lambda k: scores[k] / sizes[k])
        hits += best == right
        normalised += by_size == right
        assert record.predicted == example.choices[best]
        assert record.loss == pytest.approx(
            float(torch.tensor(scores).logsumexp(0)) - scores[right], abs=1e-4
        )
    assert found.metrics["accuracy"] == hits / 14
    assert found.metrics["accuracy_norm"] == normalised / 14


def test_the_right_choice_is_what_is_trained(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"what barks {i}", "choices": ["a fox", "tin"], "answer": i % 2} for i in range(20)]
    file = write_jsonl(tmp_path / "d.jsonl", rows)  # type: ignore[arg-type]
    task = build_task(load_task({"train": [str(file)]}))
    assert task.kind == "multiple_choice"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for e in Encoder(tokenizer, task).encode(task.train):
        text = tokenizer.decode([*e.prompt, *e.answer])
        assert text == f"<s>Question: {e.example.fields['prompt']}\nAnswer: {e.example.target}</s>"
    tight = build_task(load_task({"train": [str(file)], "max_length": 8}))
    for e in Encoder(tokenizer, tight).encode(tight.train):
        assert len(e) <= 8
        assert tokenizer.decode(e.answer).strip() == f"{e.example.target}</s>"


def test_choices_decide_the_digest(tmp_path: Path) -> None:
    found = []
    for name, choices in (("a", ["x", "y"]), ("b", ["x", "z"])):
        rows = [{"prompt": f"q {i}", "choices": choices, "answer": 0} for i in range(5)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        found.append(build_task(load_task({"test": [str(tmp_path / f"{name}.json")]})).digest())
    assert found[0] != found[1]

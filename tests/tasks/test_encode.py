"""Prompts, answers, truncation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ctxpeft.errors import DataError
from ctxpeft.tasks import Encoder, TaskData, build_task, load_task
from tests.tasks.tiny import write_jsonl


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def _task(tmp_path: Path, rows: list[dict[str, str]], **settings: object) -> TaskData:
    return build_task(load_task({"train": str(write_jsonl(tmp_path / "d.jsonl", rows)), **settings}))


LABELLED = [{"text": f"we saw a small fox {i}", "label": ("animal", "metal")[i % 2]} for i in range(6)]


@pytest.mark.parametrize(
    "template", ["{text} Label:", "{text} Label: ", "{text} Label: {label}", "{text}\n", "Label {text}"]
)
def test_prompt_and_answer_are_the_text(tokenizer: Any, tmp_path: Path, template: str) -> None:
    task = _task(tmp_path, LABELLED, template=template)
    for e in Encoder(tokenizer, task).encode(task.train):
        stem = template.removesuffix("{label}").rstrip(" ").format(text=e.example.text)
        joint = "" if stem.endswith("\n") else " "
        assert tokenizer.decode([*e.prompt, *e.answer]) == f"<s>{stem}{joint}{e.example.target}</s>"
        features = e.features()
        assert features["labels"][: len(e.prompt)] == [-100] * len(e.prompt)
        assert features["labels"][len(e.prompt) :] == list(e.answer)
        assert features["input_ids"] == tokenizer(f"{stem}{joint}{e.example.target}")["input_ids"] + [1]


def test_truncation_takes_the_text_and_never_the_label(tokenizer: Any, tmp_path: Path) -> None:
    rows = [
        {
            "text": "we saw " + "a small red fox near it " * (20 * (i % 2)) + f"x{i}",
            "label": ("animal", "metal")[i % 3 % 2],
        }
        for i in range(8)
    ]
    task = _task(tmp_path, rows, template="Question: {text} Answer:", max_length=24)
    encoder = Encoder(tokenizer, task)
    longest = 0
    for e in encoder.encode(task.train):
        assert len(e) <= 24
        assert e.answer == (*encoder.label_ids[e.example.target], 1)
        text = tokenizer.decode(e.prompt)
        assert text.startswith("<s>Question: we saw")
        assert text.endswith(" Answer:")
        longest = max(longest, len(e))
    assert longest >= 23


def test_positions_bound_the_length(tokenizer: Any, tmp_path: Path) -> None:
    task = _task(tmp_path, [{**row, "text": row["text"] * 40} for row in LABELLED], max_length=256)
    assert max(len(e) for e in Encoder(tokenizer, task, positions=32).encode(task.train)) <= 32


def test_no_room_for_the_text(tokenizer: Any, tmp_path: Path) -> None:
    task = _task(tmp_path, LABELLED, template="Question: " * 6 + "{text} Answer:", max_length=10)
    with pytest.raises(DataError, match="leaves no room"):
        Encoder(tokenizer, task)


def test_label_words(tokenizer: Any, tmp_path: Path) -> None:
    task = _task(tmp_path, LABELLED, label_words={"animal": "fox"})
    encoder = Encoder(tokenizer, task)
    assert tokenizer.decode(encoder.label_ids["animal"]) == " fox"


def test_completions(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "we saw some " * (10 * (i % 2) + 1), "completion": f"silver {i}"} for i in range(6)]
    rows.append({"prompt": "x", "completion": "iron copper zinc " * 40})
    task = _task(tmp_path, rows, max_length=24, validation_fraction=0.01)
    encoder = Encoder(tokenizer, task)
    examples = [*task.train, *task.validation]
    encoded = encoder.encode(examples)
    assert encoder.skipped == 1
    assert len(encoded) == len(rows) - 1
    for e in encoded:
        assert len(e) <= 24
        assert tokenizer.decode(e.answer) == e.example.target + "</s>"


def test_language_modelling_predicts_every_token_once(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"text": "we bought some old red lemon " * n + str(n)} for n in (1, 9, 17)]
    task = _task(tmp_path, rows, max_length=16)
    examples = [*task.train, *task.validation]
    for example in examples:
        parts = Encoder(tokenizer, task).encode([example])
        assert all(len(p) <= 16 for p in parts)
        answered = [token for p in parts for token in p.answer]
        assert [parts[0].prompt[0], *answered] == [*tokenizer(example.text)["input_ids"], 1]
        for before, after in itertools.pairwise(parts):
            assert after.prompt == before.answer[-1:]

"""The docstring-area task: splits that share neither module nor text, rows that do not name their module."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from ctxpeft.data import task_path
from scripts.docstring_task.rows import MAX_CHARACTERS, mask_module, shorten
from scripts.stdlib_text.areas import TASK_AREAS, area_of
from scripts.stdlib_text.shingles import normalised, shingles

SPLITS = ("train", "validation", "test", "ood")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    folder = task_path("docstring-area")
    return {
        split: [
            json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for split in SPLITS
    }


@pytest.fixture(scope="module")
def manifest() -> Any:
    return json.loads((task_path("docstring-area") / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_well_formed(split: str, rows: dict[str, list[dict[str, str]]]) -> None:
    for row in rows[split]:
        assert set(row) == {"text", "label", "module", "name"}
        assert row["text"] == " ".join(row["text"].split())
        assert len(row["text"]) <= MAX_CHARACTERS
        assert area_of(row["module"]) == (row["label"], "test" if split == "ood" else split)


def test_every_split_has_every_label(rows: dict[str, list[dict[str, str]]], manifest: Any) -> None:
    for split, found in rows.items():
        counts = Counter(row["label"] for row in found)
        assert set(counts) == set(TASK_AREAS)
        assert manifest["files"][f"{split}.jsonl"]["by_label"] == dict(counts)


def test_train_validation_and_test_share_no_module(rows: dict[str, list[dict[str, str]]]) -> None:
    modules = {split: {row["module"] for row in rows[split]} for split in SPLITS}
    for one, other in combinations(("train", "validation", "test"), 2):
        assert not modules[one] & modules[other]
    assert not modules["ood"] & (modules["train"] | modules["validation"])


def test_no_text_and_no_passage_occurs_twice(rows: dict[str, list[dict[str, str]]]) -> None:
    texts = [normalised(row["text"]) for split in SPLITS for row in rows[split]]
    assert len(set(texts)) == len(texts)
    passages = {split: frozenset().union(*(shingles(row["text"]) for row in rows[split])) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not passages[one] & passages[other], (one, other)


def test_no_row_names_its_module(rows: dict[str, list[dict[str, str]]]) -> None:
    for row in (row for split in SPLITS for row in rows[split]):
        assert mask_module(row["text"], row["module"]) == row["text"], row


def test_masking() -> None:
    assert mask_module("See TurtleScreen and turtle.", "turtle") == "See _Screen and _."
    assert mask_module("HTML text in htmlish words", "html.entities") == "_ text in htmlish words"
    assert mask_module("os.path and pos, os", "os") == "_.path and pos, os"


def test_shorten_cuts_between_words() -> None:
    assert shorten("one  two\nthree", 9) == "one two"
    assert shorten("one two", 7) == "one two"
    assert shorten("x" * 20, 7) == "x" * 7


def test_it_can_be_learned_and_is_not_given_away(manifest: Any) -> None:
    for measured in manifest["baselines"].values():
        assert measured["tfidf_logistic_regression"] > 2 * measured["largest_class"]
        assert measured["label_word"] < measured["tfidf_logistic_regression"] - 0.1

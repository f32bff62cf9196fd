"""Tiny files by the names and in the columns of the published sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tasks.tiny import write_jsonl

TYPES = ("abbreviation", "description", "entity", "human", "location", "number")
CATEGORIES = ("Airport", "Building", "Food", "Astronaut", "University", "Monument")
ROWS = 60
SPLITS = {"train": slice(0, 36), "dev": slice(36, 48), "test": slice(48, 60)}


def write_published(root: Path) -> None:
    """Into folders of `root`."""
    _rows(root / "trec", [{"text": f"who saw {i} of it", "label": TYPES[i % 6]} for i in range(ROWS)])
    moods = ("positive", "negative")
    _rows(root / "sst2", [{"text": f"we found {i} old", "label": moods[i % 2]} for i in range(ROWS)])
    triples = [
        {
            "category": CATEGORIES[i % 6],
            "triples": [f"Fox_{i} | food | plums"],
            "refs": [f"Fox {i} has plums.", f"Plums are food of {i}."],
        }
        for i in range(ROWS)
    ]
    _rows(root / "webnlg2017", triples)
    _text(
        root / "banking77/train.csv",
        ["text,category", *(f"lost card {i},intent_{i % 3}" for i in range(ROWS))],
    )
    for split in ("train", "dev"):
        lines = [f"{split} saw {i} plums\t{i % 28}\tid{i}" for i in range(ROWS)]
        _text(root / f"goemotions/{split}.tsv", ["text\tlabel\tid", *lines])
    attributes = [
        {"prompt": f"name : Fox {i} | food : plums", "completion": f"Fox {i} has plums ."}
        for i in range(ROWS)
    ]
    _jsonl(root / "e2e/valid.jsonl", attributes)
    for split in ("train", "val"):
        story = {"story": f"fox-{split}", "sections": [f"A fox of {split} saw plums .", "It was old ."]}
        asked = [
            {"story": f"fox-{split}", "sections": "1,2", "question": f"Who saw {i}?", "answers": ["a fox"]}
            for i in range(ROWS)
        ]
        _jsonl(root / f"fairytaleqa/{split}.stories.jsonl", [story])
        _jsonl(root / f"fairytaleqa/{split}.qa.jsonl", asked)
    _jsonl(root / "tinystories/stories.jsonl", [{"text": "the old fox saw a plum near it " * 40}])
    _text(root / "wikitext2/valid.txt", ["the old fox saw some red plums near it " * 40])


def _rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    for split, part in SPLITS.items():
        _jsonl(folder / f"{split}.jsonl", rows[part])


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)


def _text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")

"""The snapshot on disk: one JSONL file a split, and a manifest that says what they are and what they hash to."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from typing import Any

from scripts.docstring_task.baselines import measure
from scripts.docstring_task.rows import MASK, MAX_CHARACTERS, MIN_WORDS, Row
from scripts.docstring_task.splits import CAPS
from scripts.stdlib_text.areas import AREAS, CHAPTERS, TASK_AREAS
from scripts.stdlib_text.shingles import SHINGLE_WORDS

NAME = "docstring-area"

LICENCE = (
    "PSF-2.0. The texts are docstrings and comments of the Python standard library, "
    "Copyright (c) 2001 Python Software Foundation; All Rights Reserved; "
    "shortened and masked here. https://docs.python.org/3/license.html"
)

RULES = {
    "split": "by module: a module's rows are in one split only; test and ood come from the same held-out modules",
    "pretraining": "modules of validation and test are excluded from the pretraining text of ctxpeft-mini",
    "ood": "block comments of the test modules: the same labels, text written for another reader",
    "text": f"one line, cut between words at {MAX_CHARACTERS} characters, {MIN_WORDS} words at least",
    "mask": f"a row's own module names are replaced by {MASK!r} (inside identifiers where five letters or longer)",
    "leaks": f"no two rows, in one split or two, share a run of {SHINGLE_WORDS} words or the same normalised text; "
    "where they would, the row stays in the first of test, validation, train, ood",
    "balance": f"most rows of one label: {CAPS}",
    "label_words": "labels are ordinary words and are not masked; baselines.label_word tells what they give away",
}


def lines(rows: list[Row]) -> bytes:
    """A split as JSONL, UTF-8, one object a row: text, label, module, name."""
    keys = ("text", "label", "module", "name")
    return "".join(
        json.dumps({key: getattr(row, key) for key in keys}, ensure_ascii=False) + "\n" for row in rows
    ).encode()


def snapshot(splits: dict[str, list[Row]]) -> dict[str, bytes]:
    """File name -> content of the whole snapshot, the manifest included."""
    files = {f"{name}.jsonl": lines(rows) for name, rows in splits.items()}
    manifest: dict[str, Any] = {
        "name": NAME,
        "question": "Which area of the Python standard library does this text document?",
        "labels": {label: CHAPTERS[label] for label in TASK_AREAS},
        "command": "python -m scripts.build_docstring_task",
        "python": platform.python_version(),
        "licence": LICENCE,
        "rules": RULES,
        "files": {
            file: {
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "rows": content.count(b"\n"),
                "by_label": dict(
                    sorted(Counter(row.label for row in splits[file.removesuffix(".jsonl")]).items())
                ),
            }
            for file, content in files.items()
        },
        "modules": {
            label: {split: list(names) for split, names in AREAS[label].items()} for label in TASK_AREAS
        },
        "baselines": measure(splits),
    }
    files["manifest.json"] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    return files

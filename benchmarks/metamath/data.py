"""MetaMathQA to train on, GSM8K to judge by, and texts of an encyclopedia to measure forgetting on.

Each comes from the hub or from files of one's own: JSON Lines with `query` and `response`; `question` and `answer`;
`text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctxpeft.errors import DataError
from ctxpeft.extras import require
from ctxpeft.tasks._files import read_rows

METAMATH, GSM8K, WIKI = "meta-math/MetaMathQA", "openai/gsm8k", "HuggingFaceFW/finewiki"
LONGEST = 1300  # characters of query and response: what fits 768 tokens
VALIDATION, TEXTS = 50, 100
Row = Mapping[str, str]


@dataclass(frozen=True)
class Sources:
    """Where the data are: hub ids, or files. `gsm8k` of files is `TRAIN,TEST`."""

    metamath: str = METAMATH
    gsm8k: str = GSM8K
    wiki: str = WIKI


@dataclass(frozen=True)
class Sets:
    """Rows with `query` and `response`, and texts."""

    train: Sequence[Row]
    validation: Sequence[Row]
    test: Sequence[Row]
    texts: Sequence[str]


def load_sets(sources: Sources) -> Sets:
    """Everything a run reads. Training keeps the order of the set, without what is too long.

    Raises:
        DataError: a file or a dataset cannot be read.
    """
    train = [
        row
        for row in _rows(sources.metamath, "train", ("query", "response"))
        if len(f"{row['query']} {row['response']}") <= LONGEST
    ]
    own, test = _gsm8k(sources.gsm8k)
    order = np.arange(len(own))
    np.random.RandomState(0).shuffle(order)
    validation = [own[i] for i in order[:VALIDATION]]
    texts = [
        row["text"] for row, _ in zip(_rows(sources.wiki, "train", ("text",)), range(TEXTS), strict=False)
    ]
    return Sets(train, validation, test, texts)


def _gsm8k(source: str) -> tuple[list[Row], list[Row]]:
    files = source.split(",") if _is_files(source) else None
    if files is not None and len(files) != 2:
        raise DataError(f"--gsm8k {source}: expected TRAIN.jsonl,TEST.jsonl, or a dataset of the hub")
    parts = []
    for index, split in enumerate(("train", "test")):
        rows = _rows(files[index] if files else source, split, ("question", "answer"), "main")
        parts.append([_row(row["question"], row["answer"]) for row in rows])
    return parts[0], parts[1]


def _row(query: str, response: str) -> Row:
    return {"query": query, "response": response}


def _is_files(source: str) -> bool:
    return Path(source.split(",")[0]).suffix in (".json", ".jsonl", ".csv", ".tsv", ".txt")


def _rows(
    source: str, split: str, columns: Sequence[str], config: str | None = None
) -> Iterator[dict[str, str]]:
    """The named columns of a file or of a split of a dataset, streamed."""
    if _is_files(source):
        for row in read_rows(source):
            for column in columns:
                if not isinstance(row.values.get(column), str):
                    raise DataError(f"{row.where}: no text in the column '{column}'")
            yield {column: row.values[column] for column in columns}
        return
    require("datasets", "data", "a dataset of the hub")
    import datasets

    streams = source == WIKI  # too large to fetch for its first hundred rows
    try:
        loaded: Any = datasets.load_dataset(source, config, split=split, streaming=streams)
    except Exception as error:  # the hub client raises many types, all of them "cannot be had"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"dataset '{source}' cannot be loaded: {reason}") from None
    for record in loaded:
        yield {column: str(record[column]) for column in columns}

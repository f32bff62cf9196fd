"""Tokenizer and token streams of a run, made once in its work folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scripts.pretrain_mini.corpus import collect
from scripts.pretrain_mini.streams import encode_stream
from scripts.pretrain_mini.tokenizer import train_tokenizer

STREAMS = ("books", "docs", "held_out_books", "held_out_docs")


def prepare(books: Path, work: Path) -> dict[str, dict[str, int]]:
    """Write `tokenizer.json`, `<stream>.npy` (token ids), `<stream>.json` (texts) and `corpus.json` (counts)."""
    work.mkdir(parents=True, exist_ok=True)
    corpus = collect(books)
    tokenizer = train_tokenizer(corpus)
    tokenizer.save(str(work / "tokenizer.json"))
    counts: dict[str, dict[str, int]] = {}
    for name in STREAMS:
        documents: list[str] = getattr(corpus, name)
        tokens = encode_stream(tokenizer, documents)
        np.save(work / f"{name}.npy", tokens)
        (work / f"{name}.json").write_text(json.dumps(documents, ensure_ascii=False), encoding="utf-8")
        size = sum(len(text.encode()) for text in documents)
        counts[name] = {"documents": len(documents), "bytes": size, "tokens": len(tokens)}
    (work / "corpus.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return counts

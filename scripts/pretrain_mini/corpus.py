"""What the model reads: two streams of documents, prose and documentation, with a held-out part of each."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from scripts.pretrain_mini.books import read_books
from scripts.stdlib_text.areas import area_of, is_held_out
from scripts.stdlib_text.shingles import normalised, shingles, union
from scripts.stdlib_text.source import SourceFile, docstrings, parse, source_files

#: The language reference as `pydoc` prints it: a module that assigns one dictionary of long strings.
TOPICS_MODULE = "pydoc_data.topics"


@dataclass(frozen=True)
class Corpus:
    """Documents by stream. Held-out documents share no run of eight words with the training documentation."""

    books: list[str]
    docs: list[str]
    held_out_books: list[str]
    held_out_docs: list[str]


def topics(source: SourceFile) -> list[str]:
    """The values of the dictionary in `pydoc_data.topics`: sections of the language reference."""
    tree = parse(source)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)] if tree else []
    return [
        str(value.value).strip() for node in found for value in node.values if isinstance(value, ast.Constant)
    ]


def held_out_documents(sources: list[SourceFile], split: str | None = None) -> list[str]:
    """Docstrings of the held-out modules (of one split, or of both), test packages left out."""
    return [
        doc.text
        for source in sources
        if not source.is_test and (found := area_of(source.module)) is not None
        if found[1] != "train" and split in (None, found[1])
        for doc in docstrings(source)
    ]


def without_overlap(text: str, forbidden: frozenset[str]) -> str:
    """The paragraphs of a text that share no shingle with `forbidden`."""
    return "\n\n".join(part for part in text.split("\n\n") if not shingles(part) & forbidden).strip()


def training_documents(sources: list[SourceFile]) -> list[str]:
    """Docstrings of every other module, in order of source, and the language reference; repeats left out."""
    forbidden = union(held_out_documents(sources))
    seen: set[str] = set()
    documents: list[str] = []
    for source in sources:
        if is_held_out(source.module):
            continue
        texts = topics(source) if source.module == TOPICS_MODULE else [doc.text for doc in docstrings(source)]
        for text in texts:
            kept = without_overlap(text, forbidden)
            key = normalised(kept)
            if key and key not in seen:
                seen.add(key)
                documents.append(kept)
    return documents


def collect(books: Path) -> Corpus:
    """The corpus from a books file and the running interpreter's standard library."""
    library = read_books(books)
    sources = list(source_files())
    return Corpus(
        books=[book.text for book in library if not book.held_out],
        docs=training_documents(sources),
        held_out_books=[book.text for book in library if book.held_out],
        held_out_docs=held_out_documents(sources, "test"),
    )

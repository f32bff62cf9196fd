"""The model card, written from `evaluation.json`: no number in it is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.pretrain_mini.books import HELD_OUT_TITLES
from scripts.pretrain_mini.evaluate import FILE

STREAM_NAMES = {"held_out_books": "held-out books", "held_out_docs": "held-out docstrings"}

HEADER = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# ctxpeft-mini

A Llama of {parameters:,} parameters (width 192, 6 layers, 6 query heads over 2 key-value heads of width 32,
tied embeddings, context 512) with its own byte-level BPE vocabulary of 2,048. It ships inside ctxpeft so that every
example, test and search runs offline on a laptop; it is a laboratory animal, not an assistant.

```python
from ctxpeft.data import mini_model_path
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(mini_model_path())
tokenizer = AutoTokenizer.from_pretrained(mini_model_path())
```

`<s>` (1) is put before every text, `</s>` (2) never; `<pad>` (0) is a token of its own. Padding is on the left by
default, for generation; on the right gives the same logits.
"""

DATA = """
## Data

| stream | documents | bytes | tokens | share of a batch |
|---|---|---|---|---|
| children's books | {books[documents]:,} | {books[bytes]:,} | {books[tokens]:,} | {book_share:.1%} |
| documentation | {docs[documents]:,} | {docs[bytes]:,} | {docs[tokens]:,} | {doc_share:.1%} |

The books are in the public domain (Project Gutenberg; headers and licence texts removed). The documentation is the
docstrings of the Python standard library, read from its source without importing it, and the language reference that
`pydoc` prints (PSF-2.0). Kept out of training: the books {titles}; every module of
the validation, test and ood splits of the `docstring-area` task with the tests of those modules; every paragraph that
shares a run of eight words with their docstrings. Held-out docstrings below are those of the test modules.
"""

TRAINING = """
## Training

{steps:,} steps of {batch:,} tokens, {tokens:,} tokens in all (books {book_epochs:.1f} times, documentation
{doc_epochs:.1f} times), {hours} hours on two shared CPU cores. Muon on the matrices of the layers (learning rate
{muon_lr}), AdamW on embedding and norms ({adam_lr}), warm-up of {warmup} steps, constant, then {decay_steps} steps of
linear decay to zero on windows of {long} instead of {length} tokens. Training loss at the end: {final_loss:.3f} nats
a token.
"""

LIMITS = """
## Intended use and limits

For tests, tutorials, benchmarks of fine-tuning methods and searches over them, where a model must be real enough that
methods differ and small enough that a run takes seconds. English only. It knows no facts worth asking for, writes
sentences that do not hold together over a paragraph, and repeats the views of books from 600 BC to 1920. Nothing was
done to make its output safe or true; do not put it before users.

## Licence

Weights, tokenizer and this card: Apache-2.0. Trained on public-domain books and on PSF-2.0 documentation.

Written by `{command}`; the numbers are in `evaluation.json`.
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def compression_section(measured: dict[str, dict[str, float]]) -> str:
    """Bits per byte, one row a method."""
    methods = list(next(iter(measured.values())))
    rows = [[method, *(f"{measured[stream][method]:.3f}" for stream in measured)] for method in methods]
    return (
        "\n## Bits per byte of held-out text\n\n"
        + table(["method", *(STREAM_NAMES[stream] for stream in measured)], rows)
        + "\n\nEvery document is coded by itself with an end mark; the 5-gram counts the same training text;"
        + "\nthe compressors see all documents at once.\n"
    )


def probe_section(measured: dict[str, dict[str, dict[str, Any]]], words: dict[str, dict[str, float]]) -> str:
    """Accuracy of linear probes: trained model, random initialisation, and words without a model where measured."""
    rows = [
        [
            task,
            split,
            f"{found['trained'][split]:.3f}",
            f"{found['random_init'][split]:.3f}",
            f"{words[task][split]:.3f}" if task in words else "",
        ]
        for task, found in measured.items()
        for split in ("test", "ood")
        if split in found["trained"]
    ]
    return (
        "\n## Linear probes of the frozen model\n\n"
        + table(["task", "split", "ctxpeft-mini", "random initialisation", "TF-IDF words, no model"], rows)
        + "\n\nLogistic regression on one layer's mean or last state; layer, pooling and strength chosen on validation."
        + "\n"
    )


def sample_section(found: list[dict[str, str]]) -> str:
    """Sampled continuations, the prompt in bold."""
    blocks = [
        f"> **{sample['prompt']}**{' '.join(sample['continuation'].split(' '))}".replace("\n", "\n> ")
        for sample in found
    ]
    return "\n## Samples\n\nTemperature 0.8, top-k 40, seed 0, not chosen.\n\n" + "\n\n".join(blocks) + "\n"


def card(result: dict[str, Any]) -> str:
    """The card's Markdown."""
    run, recipe, corpus = result["training"], result["training"]["recipe"], result["training"]["corpus"]
    doc_share = recipe["doc_rows"] / recipe["rows"]
    shares = {"doc_share": doc_share, "book_share": 1 - doc_share}
    epochs = {
        "doc_epochs": run["tokens"] * doc_share / corpus["docs"]["tokens"],
        "book_epochs": run["tokens"] * (1 - doc_share) / corpus["books"]["tokens"],
    }
    titles = " and ".join(f"*{title}*" for title in HELD_OUT_TITLES)
    lengths = {"batch": recipe["rows"] * recipe["length"], "long": 2 * recipe["length"]}
    return "".join(
        [
            HEADER.format(**result),
            DATA.format(**corpus, **shares, titles=titles),
            TRAINING.format(**{**recipe, **run, **epochs, **lengths}),
            compression_section(result["bits_per_byte"]),
            probe_section(result["probes"], result["words"]),
            sample_section(result["samples"]),
            LIMITS.format(**result),
        ]
    )


def write_card(folder: Path) -> None:
    """Write `README.md` beside `evaluation.json`."""
    result = json.loads((folder / FILE).read_text(encoding="utf-8"))
    (folder / "README.md").write_text(card(result), encoding="utf-8")

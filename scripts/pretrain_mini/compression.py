"""Bits per byte of held-out text: the model against compressors and counting.

Documents are coded one by one with an end mark each, so a text of n bytes counts n + 1 bytes for every method.
"""

from __future__ import annotations

import gzip
import lzma
import math

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from scripts.pretrain_mini.ngram import KneserNey

WINDOW = 512
BATCH = 16

END = b"\0"


def joined(documents: list[str]) -> bytes:
    """All documents in UTF-8, a zero byte behind each."""
    return b"".join(text.encode() + END for text in documents)


def windows(ids: list[int], bos: int, length: int = WINDOW) -> list[tuple[list[int], int]]:
    """(window, number of tokens at its end to score): `<s>` and up to `length - 1` tokens, half of them context."""
    stride = length // 2
    found = [([bos, *ids[: length - 1]], min(len(ids), length - 1))]
    done = length - 1
    while done < len(ids):
        new = ids[done : done + stride]
        context = ids[done + len(new) - (length - 1) : done]
        found.append(([bos, *context, *new], len(new)))
        done += len(new)
    return found


@torch.no_grad()
def model_bits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> float:
    """Bits to code all documents, each token with at least half a window of context where its document has it."""
    pieces = []
    for ids in tokenizer(documents, add_special_tokens=False, verbose=False)["input_ids"]:
        pieces += windows([*ids, tokenizer.eos_token_id], tokenizer.bos_token_id)
    pieces.sort(key=lambda piece: len(piece[0]))
    nats = 0.0
    for start in range(0, len(pieces), BATCH):
        batch = pieces[start : start + BATCH]
        width = max(len(ids) for ids, _ in batch)
        inputs = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in batch])
        targets = torch.full_like(inputs, -100)
        for row, (ids, scored) in enumerate(batch):
            targets[row, len(ids) - scored : len(ids)] = inputs[row, len(ids) - scored : len(ids)]
        logits = model(input_ids=inputs).logits[:, :-1].float()
        nats += functional.cross_entropy(
            logits.flatten(0, 1), targets[:, 1:].flatten(), reduction="sum"
        ).item()
    return nats / math.log(2)


def bits_per_byte(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, counted: KneserNey, documents: list[str]
) -> dict[str, float]:
    """Bits per byte by method: the model, the 5-gram, gzip -9 and xz -9e (the last two on all documents at once)."""
    text = joined(documents)
    bits = {
        "ctxpeft-mini": model_bits(model, tokenizer, documents),
        "byte 5-gram (Kneser-Ney)": counted.bits(text),
        "xz -9e": 8.0 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        "gzip -9": 8.0 * len(gzip.compress(text, compresslevel=9, mtime=0)),
    }
    return {name: round(value / len(text), 4) for name, value in bits.items()}

"""What the model writes, greedily, and how it compares with what it should write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ctxpeft.tasks._collate import by_length, left_padded, pad_id
from ctxpeft.tasks._encode import Encoded, Encoder


@torch.no_grad()
def greedy_ids(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    rows: int = 32,
    stop: str | None = None,
) -> list[list[int]]:
    """The greedy continuation of each prompt, up to the end-of-text token, after `stop`, or `new_tokens`."""
    pad = pad_id(tokenizer)
    device = next(model.parameters()).device
    found: list[list[int]] = [[] for _ in prompts]
    extra: dict[str, Any] = {"stop_strings": [stop], "tokenizer": tokenizer} if stop else {}
    for batch in by_length([len(p) for p in prompts], rows, 1 << 20):
        ids, mask, _ = left_padded([prompts[i] for i in batch], pad, device)
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
            **extra,
        )[:, ids.shape[1] :].tolist()
        for i, row in zip(batch, written, strict=True):
            if tokenizer.eos_token_id in row:
                row = row[: row.index(tokenizer.eos_token_id)]
            found[i] = row
    return found


def written_texts(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> list[str]:
    """The greedy text after each prompt.

    It ends where the model ends it, or at the task's `stop`. Where answers have neither, as many tokens as the answer
    has are kept.
    """
    spec = encoder.task.spec
    longest = spec.new_tokens or max(len(e.answer) for e in encoded) + 1
    written = greedy_ids(
        model, encoder.tokenizer, [e.prompt for e in encoded], longest, stop=spec.stop or None
    )
    bounded = bool(encoder.eos or spec.stop)
    kept = [ids if bounded else ids[: len(e.answer)] for ids, e in zip(written, encoded, strict=True)]
    texts = [encoder.tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
    return [(text.lstrip().partition(spec.stop)[0] if spec.stop else text).strip() for text in texts]


def exact_match(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> float:
    """The share of examples whose greedy text, white space aside, is the answer."""
    written = written_texts(model, encoder, encoded)
    hits = sum(
        text.split() == encoder.answer_text(e.example).split()
        for text, e in zip(written, encoded, strict=True)
    )
    return hits / len(encoded)

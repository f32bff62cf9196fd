"""Batches: examples of like length together, padded to the longest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED = -100


class Collator:
    """Pads `input_ids`, `labels` and `attention_mask` on the right to the longest row of the batch."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of token ids to tensors of shape (B, T)."""
        width = max(len(row["input_ids"]) for row in features)
        ids = torch.full((len(features), width), self.pad_id)
        labels = torch.full((len(features), width), IGNORED)
        mask = torch.zeros((len(features), width), dtype=torch.long)
        for i, row in enumerate(features):
            n = len(row["input_ids"])
            ids[i, :n] = torch.tensor(row["input_ids"])
            labels[i, :n] = torch.tensor(row["labels"])
            mask[i, :n] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def pad_id(tokenizer: Any) -> int:
    """The padding token; any token does, since padding is masked."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def by_length(lengths: Sequence[int], rows: int, tokens: int) -> Iterator[list[int]]:
    """Indices in batches of at most `rows`, and at most `tokens` after padding, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        count = max(1, min(rows, tokens // max(lengths[order[0]], 1)))
        yield order[:count]
        order = order[count:]


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions, each (B, T); the last column is every prompt's last token."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return ids.to(device), mask.to(device), positions.to(device)

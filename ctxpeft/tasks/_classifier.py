"""Classification through a head: a text in, one number a class out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.tasks._collate import Collator, by_length, pad_id
from ctxpeft.tasks._encode import Encoded, Encoder
from ctxpeft.tasks._example import Example
from ctxpeft.tasks._load import TaskData
from ctxpeft.tasks._metrics import Evaluation, classification_records, summarise_classification

ROWS, TOKENS = 64, 8192


@dataclass(frozen=True)
class Classified(Encoded):
    """A text as the tokenizer writes it, end included, and the number of its class."""

    index: int = 0

    def features(self) -> dict[str, Any]:
        """What the Trainer reads: `input_ids`, and the class as `labels`."""
        return {"input_ids": list(self.prompt), "labels": self.index}


class ClassCollator(Collator):
    """Pads `input_ids` and `attention_mask` on the right; `labels` are (B,)."""

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of token ids to tensors of shape (B, T), the classes to one of shape (B,)."""
        classes = torch.tensor([row["labels"] for row in features])
        rows = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in features]
        return {**super().__call__(rows), "labels": classes}


class ClassifierEncoder(Encoder):
    """Encodes texts for a classification head; long ones lose their end.

    Args:
        tokenizer: a transformers tokenizer.
        task: a classification.
        positions: the most tokens the model can see, if it has a bound.
    """

    def __init__(self, tokenizer: Any, task: TaskData, positions: int | None = None) -> None:
        self.tokenizer, self.task = tokenizer, task
        self.eos = ()
        self.label_ids = {}
        self.skipped = 0
        self.max_length = min(task.spec.max_length, positions or task.spec.max_length)
        self._template = task.template

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """All examples, in order."""
        index = {label: i for i, label in enumerate(self.task.labels)}
        return [
            Classified(tuple(ids), (), example, index[example.target])
            for example, ids in zip(examples, map(self._text_ids, examples), strict=True)
        ]

    def collator(self) -> Collator:
        """Makes batches of encoded examples."""
        return ClassCollator(pad_id(self.tokenizer))

    def _text_ids(self, example: Example) -> list[int]:
        found: list[int] = self.tokenizer(
            self.text_of(example), truncation=True, max_length=self.max_length, verbose=False
        )["input_ids"]
        return found


@torch.no_grad()
def classify(model: nn.Module, encoder: ClassifierEncoder, encoded: Sequence[Encoded]) -> Evaluation:
    """Accuracy and losses from the head's outputs."""
    collate, device = encoder.collator(), next(model.parameters()).device
    scores = torch.empty(len(encoded), len(encoder.task.labels))
    for batch in by_length([len(e.prompt) for e in encoded], ROWS, TOKENS):
        inputs = {k: v.to(device) for k, v in collate([encoded[i].features() for i in batch]).items()}
        del inputs["labels"]
        scores[batch] = model(**inputs).logits.float().log_softmax(-1).cpu()
    labels = encoder.task.labels
    records = classification_records(
        [e.example.id for e in encoded],
        [e.example.target for e in encoded],
        list(labels),
        scores.numpy(),
        [1] * len(labels),
    )
    return summarise_classification(records, list(labels))

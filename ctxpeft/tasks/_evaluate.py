"""Evaluate a model on examples of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ctxpeft.errors import DataError
from ctxpeft.tasks._collate import Collator, by_length, pad_id
from ctxpeft.tasks._encode import Encoded, Encoder
from ctxpeft.tasks._examples import Example
from ctxpeft.tasks._generate import exact_match
from ctxpeft.tasks._metrics import (
    Evaluation,
    Record,
    classification_records,
    summarise_classification,
    summarise_text,
)
from ctxpeft.tasks._scoring import label_scores, sequence_losses, token_budget
from ctxpeft.tasks._trie import disjoint

ROWS, TOKENS = 64, 8192


def evaluate(
    model: nn.Module,
    encoder: Encoder,
    examples: Sequence[Example],
    generate: int | None = None,
    labels: bool = True,
) -> Evaluation:
    """Metrics and per-example records of `examples`.

    Args:
        model: a causal language model, with or without adapters; left in the mode it was in.
        encoder: the task, for the model's tokenizer.
        examples: one split of the task.
        generate: how many examples to check by greedy generation; the task's `generate_limit` when None.
        labels: whether classification scores every label. Without, it gives the `token_loss` of the true answers
            alone: the same number, at one sequence an example.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError(f"{encoder.task.spec.name} has no such data to evaluate on")
    was_training = model.training
    model.eval()
    try:
        encoded = encoder.encode(examples)
        if encoder.task.kind == "classification":
            result = (_classify if labels else _true_labels)(model, encoder, encoded)
        else:
            result = summarise_text(encoder.task.kind, _losses(model, encoder, encoded))
        limit = encoder.task.spec.generate_limit if generate is None else generate
        checked = sorted(encoded, key=lambda e: e.example.id)[:limit]
        can_generate = callable(getattr(model, "generate", None))
        if checked and can_generate and encoder.task.kind != "language_modelling":
            metrics = result.metrics | {"exact_match": exact_match(model, encoder, checked)}
            result = replace(result, metrics=metrics, generated=len(checked))
        return result
    finally:
        model.train(was_training)


def _classify(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> Evaluation:
    label_ids = encoder.label_ids
    everything = list(label_ids.values())
    scores = label_scores(
        model, [e.prompt for e in encoded], label_ids, encoder.eos, pad_id(encoder.tokenizer), ROWS, TOKENS
    )
    lengths = [len(disjoint(ids, everything, encoder.eos)) for ids in everything]
    records = classification_records(
        [e.example.id for e in encoded],
        [e.example.target for e in encoded],
        list(label_ids),
        scores.numpy(),
        lengths,
    )
    return summarise_classification(records, list(label_ids))


def _true_labels(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> Evaluation:
    everything = list(encoder.label_ids.values())
    answers = [
        replace(e, answer=disjoint(encoder.label_ids[e.example.target], everything, encoder.eos))
        for e in encoded
    ]
    records = [replace(record, weight=1.0) for record in _losses(model, encoder, answers)]
    mean = sum(record.value for record in records) / len(records)
    return Evaluation(encoder.task.kind, "token_loss", False, {"token_loss": mean}, records=records)


def _losses(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> list[Record]:
    """One record an example, the parts of a long text joined."""
    collate = Collator(pad_id(encoder.tokenizer))
    nats = [0.0] * len(encoded)
    for batch in by_length([len(e) for e in encoded], ROWS, token_budget(model)):
        losses = sequence_losses(model, collate([encoded[i].features() for i in batch])).tolist()
        for i, loss in zip(batch, losses, strict=True):
            nats[i] = loss
    sums: dict[int, tuple[Example, float, int]] = {}
    for part, loss in zip(encoded, nats, strict=True):
        example, so_far, tokens = sums.get(id(part.example), (part.example, 0.0, 0))
        sums[id(part.example)] = (example, so_far + loss, tokens + len(part.answer))
    return [_record(encoder, *entry) for entry in sums.values()]


def _record(encoder: Encoder, example: Example, nats: float, tokens: int) -> Record:
    mean: float = nats / tokens
    text: Any = example.target or example.text
    return Record(example.id, mean, float(tokens), mean, mean, size=len(text.encode()))

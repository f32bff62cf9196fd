"""Evaluate a model on examples of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ctxpeft.errors import DataError
from ctxpeft.tasks._classifier import ClassifierEncoder, classify
from ctxpeft.tasks._collate import IGNORED, by_length, pad_id
from ctxpeft.tasks._encode import Encoded, Encoder
from ctxpeft.tasks._example import Example
from ctxpeft.tasks._generate import exact_match, written_texts
from ctxpeft.tasks._metrics import (
    Evaluation,
    Record,
    classification_records,
    summarise_choices,
    summarise_classification,
    summarise_text,
)
from ctxpeft.tasks._scoring import label_scores, sequence_losses, token_budget
from ctxpeft.tasks._text_metrics import of_corpus, per_example, require_metrics
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
        if isinstance(encoder, ClassifierEncoder):
            return classify(model, encoder, encoded)
        if encoder.task.kind == "classification":
            result = (_classify if labels else _true_labels)(model, encoder, encoded)
        elif encoder.task.kind == "multiple_choice":
            return _choose(model, encoder, encoded)
        else:
            result = summarise_text(encoder.task.kind, _losses(model, encoder, encoded))
        limit = encoder.task.spec.generate_limit if generate is None else generate
        checked = sorted(encoded, key=lambda e: e.example.id)[:limit]
        can_generate = callable(getattr(model, "generate", None))
        if checked and can_generate and encoder.task.spec.metrics and encoder.task.kind == "completion":
            return _write(model, encoder, encoded, result, limit)
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


def _choose(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> Evaluation:
    """Every choice as a continuation of its prompt, scored by its likelihood."""
    collate = encoder.collator()
    rows: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    for i, e in enumerate(encoded):
        choices = encoder.choices(e.example)
        distinct = list(dict.fromkeys(choices))
        rows += [(i, e.prompt, disjoint(ids, distinct, encoder.eos)) for ids in choices]
    scores: list[list[float]] = [[] for _ in encoded]
    lengths: list[list[int]] = [[] for _ in encoded]
    found = [0.0] * len(rows)
    for batch in by_length([len(p) + len(c) for _, p, c in rows], ROWS, token_budget(model)):
        features = [
            {"input_ids": [*p, *c], "labels": [IGNORED] * len(p) + list(c)}
            for _, p, c in (rows[k] for k in batch)
        ]
        for k, loss in zip(batch, sequence_losses(model, collate(features)).tolist(), strict=True):
            found[k] = -loss
    for (i, _, ids), score in zip(rows, found, strict=True):
        scores[i].append(score)
        lengths[i].append(len(ids))
    return summarise_choices([e.example for e in encoded], scores, lengths)


def _write(
    model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded], losses: Evaluation, limit: int
) -> Evaluation:
    """The metrics of greedy text, a record a prompt, beside the losses of all references."""
    spec = encoder.task.spec
    require_metrics(spec.metrics)
    groups: dict[str, list[Encoded]] = {}
    for e in encoded:
        groups.setdefault(e.example.key, []).append(e)
    chosen = sorted(groups.values(), key=lambda group: min(e.example.id for e in group))[:limit]
    longest = [max(group, key=lambda e: len(e.answer)) for group in chosen]
    written = written_texts(model, encoder, longest)
    references = [[encoder.answer_text(e.example) for e in group] for group in chosen]
    metrics = {name: of_corpus(name, written, references) for name in spec.metrics}
    loss = {record.id: record for record in losses.records}
    primary = spec.primary
    assert primary is not None
    records = []
    for group, text, refs in zip(chosen, written, references, strict=True):
        parts = [loss[e.example.id] for e in group]
        mean = sum(p.value * p.weight for p in parts) / sum(p.weight for p in parts)
        value = per_example(primary, text, refs)
        name = group[0].example.key[:16]
        records.append(Record(name, value, 1.0, mean, mean, " ||| ".join(refs), text))
    return Evaluation(
        encoder.task.kind, primary, True, metrics | losses.metrics, {}, records, generated=len(records)
    )


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
    collate = encoder.collator()
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

"""Per-example records and what is computed from them.

A record's `value` is the example's part of the main metric and `weight` its weight there, so that the metric
of any resample is sum(value * weight) / sum(weight): what a paired comparison needs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """One example's result.

    value: 1 or 0 (correct) in classification and multiple choice, the main metric of generated text where the task
        has one, else the mean loss of its answer's tokens in nats.
    loss: nats of the true label among all labels (of the right choice among the choices), else equal to `token_loss`.
    token_loss: mean nats of the answer's tokens.
    target, predicted: labels or choices; references (joined by ` ||| `) and the text written.
    """

    id: str
    value: float
    weight: float
    loss: float
    token_loss: float
    target: str | None = None
    predicted: str | None = None
    size: int = 0  # bytes of the answer's text


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one split; `primary` names the main one.

    Classification: accuracy, macro_f1, loss (nats of the true label, scores renormalised over the labels),
    token_loss (mean nats of the label's tokens). Multiple choice: accuracy, accuracy_norm, loss, token_loss. Else:
    token_loss, perplexity, bits_per_byte, and what the task asks of greedy text over `generated` prompts. Without
    such a list exact_match over `generated` examples, where generation was asked for.
    """

    kind: str
    primary: str
    greater_is_better: bool
    metrics: dict[str, float]
    per_class: dict[str, dict[str, int]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    generated: int = 0

    @property
    def value(self) -> float:
        """The main metric."""
        return self.metrics[self.primary]

    def summary(self) -> dict[str, Any]:
        """Everything but the records, as plain data."""
        data = asdict(self)
        del data["records"]
        return data | {"count": len(self.records)}


def classification_records(
    ids: Sequence[str],
    targets: Sequence[str],
    labels: Sequence[str],
    scores: np.ndarray[Any, Any],
    lengths: Sequence[int],
) -> list[Record]:
    """Records from label log-likelihoods (N, C) in nats; `lengths` are tokens a label. Ties: the first."""
    index = {label: c for c, label in enumerate(labels)}
    scores = scores.astype(np.float64)
    top = scores.max(axis=1, keepdims=True)
    log_norm = (top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True)))[:, 0]
    records = []
    for i, target in enumerate(targets):
        c, best = index[target], int(scores[i].argmax())
        records.append(
            Record(
                id=ids[i],
                value=float(best == c),
                weight=1.0,
                loss=float(log_norm[i] - scores[i, c]),
                token_loss=float(-scores[i, c] / lengths[c]),
                target=target,
                predicted=labels[best],
            )
        )
    return records


def summarise_classification(records: list[Record], labels: Sequence[str]) -> Evaluation:
    """Accuracy, macro F1 over the labels that occur or are predicted, losses, counts a class."""
    seen = Counter(r.target for r in records)
    guessed = Counter(r.predicted for r in records)
    right = Counter(r.target for r in records if r.value)
    per_class = {
        label: {"count": seen[label], "predicted": guessed[label], "correct": right[label]}
        for label in labels
    }
    present = [label for label in labels if seen[label] or guessed[label]]
    f1 = [2 * right[label] / (seen[label] + guessed[label]) for label in present]
    metrics = {
        "accuracy": _mean([r.value for r in records]),
        "macro_f1": _mean(f1),
        "loss": _mean([r.loss for r in records]),
        "token_loss": _mean([r.token_loss for r in records]),
    }
    return Evaluation("classification", "accuracy", True, metrics, per_class, records)


def summarise_choices(
    examples: Sequence[Any], scores: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]]
) -> Evaluation:
    """Accuracy of the likeliest choice, and of the likeliest a byte of its text, as evaluation harnesses report both.

    Args:
        examples: with `choices` and the right one as `target`.
        scores: log-likelihood (nats) of every choice of every example.
        lengths: tokens scored of each.
    """
    records, normalised = [], []
    for example, found, tokens in zip(examples, scores, lengths, strict=True):
        values = np.asarray(found, dtype=np.float64)
        right = example.choices.index(example.target)
        best = example.choices[int(values.argmax())]
        sizes = [len(choice.encode()) for choice in example.choices]
        normalised.append(float(example.choices[int((values / sizes).argmax())] == example.target))
        top = values.max()
        loss = float(top + np.log(np.exp(values - top).sum()) - values[right])
        token_loss = float(-values[right] / tokens[right])
        records.append(
            Record(example.id, float(best == example.target), 1.0, loss, token_loss, example.target, best)
        )
    metrics = {
        "accuracy": _mean([r.value for r in records]),
        "accuracy_norm": _mean(normalised),
        "loss": _mean([r.loss for r in records]),
        "token_loss": _mean([r.token_loss for r in records]),
    }
    return Evaluation("multiple_choice", "accuracy", True, metrics, {}, records)


def summarise_text(kind: str, records: list[Record]) -> Evaluation:
    """Token loss (nats), perplexity and bits per UTF-8 byte of the answers."""
    nats = sum(r.value * r.weight for r in records)
    tokens = sum(r.weight for r in records)
    size = sum(r.size for r in records)
    loss = nats / tokens if tokens else math.nan
    metrics = {
        "token_loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": nats / math.log(2) / size if size else math.nan,
    }
    return Evaluation(kind, "token_loss", False, metrics, {}, records)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

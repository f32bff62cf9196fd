"""Linear probes of frozen features: what pretraining put there that a random network of the same shape lacks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from transformers import PreTrainedModel, PreTrainedTokenizerFast

Features = npt.NDArray[np.float32]

POOLINGS = ("mean", "last")
STRENGTHS = (0.003, 0.03)
BATCH = 32
MAX_TOKENS = 256


@dataclass(frozen=True)
class Labelled:
    """Texts with their labels."""

    texts: list[str]
    labels: list[str]

    @classmethod
    def read(cls, path: Path) -> Labelled:
        """From JSONL rows with `text` and `label`."""
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return cls([row["text"] for row in rows], [str(row["label"]) for row in rows])

    def split(self, every: int) -> tuple[Labelled, Labelled]:
        """(the others, each `every`-th row)."""
        other = [i for i in range(len(self.texts)) if i % every]
        taken = range(0, len(self.texts), every)
        return self._take(other), self._take(list(taken))

    def _take(self, rows: list[int]) -> Labelled:
        return Labelled([self.texts[i] for i in rows], [self.labels[i] for i in rows])


@torch.no_grad()
def features(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Features:
    """(layers, poolings, texts, width): hidden states of every layer, the mean over tokens and the last token's."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows: dict[int, Features] = {}
    for start in range(0, len(order), BATCH):
        picked = order[start : start + BATCH]
        encoded = tokenizer(
            [texts[i] for i in picked],
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        mask = encoded["attention_mask"]
        hidden = model(**encoded, output_hidden_states=True).hidden_states[1:]
        states = torch.stack([h.float() for h in hidden])
        mean = (states * mask[None, :, :, None]).sum(2) / mask.sum(1)[None, :, None]
        last = states[:, torch.arange(len(picked)), mask.sum(1) - 1]
        pooled = torch.stack([mean, last], dim=1).numpy()
        rows |= {i: pooled[:, :, j] for j, i in enumerate(picked)}
    return np.stack([rows[i] for i in range(len(texts))], axis=2)


def probe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    train: Labelled,
    validation: Labelled,
    tests: dict[str, Labelled],
) -> dict[str, float | int | str]:
    """Accuracy on each test set of the probe whose layer, pooling and strength are the best on validation."""
    seen = features(model, tokenizer, train.texts)
    checked = features(model, tokenizer, validation.texts)
    best: tuple[float, int, int, Pipeline] | None = None
    for layer, pooling, strength in product(range(len(seen)), range(len(POOLINGS)), STRENGTHS):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300, tol=1e-3))
        with threadpool_limits(1, user_api="blas"):  # these products are too small to share
            classifier.fit(seen[layer, pooling], train.labels)
        score = float(classifier.score(checked[layer, pooling], validation.labels))
        if best is None or score > best[0]:
            best = (score, layer, pooling, classifier)
    assert best is not None
    score, layer, pooling, classifier = best
    result: dict[str, float | int | str] = {
        "layer": layer + 1,
        "pooling": POOLINGS[pooling],
        "validation": round(score, 4),
    }
    for name, data in tests.items():
        found = features(model, tokenizer, data.texts)[layer, pooling]
        result[name] = round(float(classifier.score(found, data.labels)), 4)
    return result

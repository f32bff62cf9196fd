"""The linear probe: a logistic regression on what the frozen model makes of the prompt."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ctxpeft.errors import DataError
from ctxpeft.files import replacing
from ctxpeft.tasks import Encoded, Evaluation, evaluate, pad_id
from ctxpeft.tasks._collate import by_length, left_padded
from ctxpeft.tasks._metrics import classification_records, summarise_classification
from ctxpeft.training._bench import Bench

Array = NDArray[np.float64]
Reading = Literal["mean", "last"]
READINGS: tuple[Reading, ...] = ("mean", "last")
STRENGTHS = tuple(10.0**k for k in range(-4, 4))  # inverse regularisation, tried on validation data
ROWS, TOKENS = 64, 8192
LEAST = 1e-12  # probability of a class that training never shows


@dataclass
class Probe:
    """A fitted probe. Validation data chose `strength`, the inverse regularisation, and `reading`, what it reads."""

    bench: Bench
    reading: Reading
    strength: float
    mean: Array
    scale: Array
    fitted: Any
    seconds: float

    def num_parameters(self) -> int:
        """A weight a class and width, and a bias a class."""
        return len(self.bench.task.labels) * (len(self.mean) + 1)

    def evaluate(self, split: str, generate: int | None = None) -> Evaluation | None:
        """A split; other tasks' text through the frozen model, other tasks' labels not at all."""
        on = self.bench.measured_on(split)
        if on.encoder.task.kind != "classification":
            return evaluate(self.bench.base.model, on.encoder, on.examples, generate)
        labels = list(self.bench.task.labels)
        if list(on.encoder.task.labels) != labels:
            return None
        encoded = on.encoder.encode(on.examples)
        scores = self.scores(features(self.bench, encoded)[self.reading])
        records = classification_records(
            [e.example.id for e in encoded],
            [e.example.target for e in encoded],
            labels,
            scores,
            [1] * len(labels),
        )
        return summarise_classification(records, labels)

    def scores(self, hidden: Array) -> Array:
        """Log-probabilities of the task's labels: (N, C) from (N, D)."""
        known = self.fitted.predict_log_proba((hidden - self.mean) / self.scale)
        scores = np.full((len(hidden), len(self.bench.task.labels)), np.log(LEAST))
        scores[:, self.fitted.classes_] = np.maximum(known, np.log(LEAST))
        return scores

    def save(self, folder: Path) -> None:
        """`probe.safetensors`: weight (C, D), bias (C), mean and scale (D), for the classes of training."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "weight": self.fitted.coef_,
            "bias": self.fitted.intercept_,
            "mean": self.mean,
            "scale": self.scale,
            "classes": self.fitted.classes_,
        }
        with replacing(folder / "probe.safetensors") as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)


def fit(bench: Bench) -> Probe:
    """Fit on the training data; validation data choose what is read and the strength (the mean and 1 without any).

    It reads the last hidden state of the prompt's last token, or the mean over its tokens. Features are standardised on
    the training data.

    Raises:
        DataError: the task is no classification by label, or training shows one class only.
    """
    if bench.task.kind != "classification" or bench.base.head:
        raise DataError(
            f"the linear probe needs a classification by label, and {bench.task.spec.name} is none"
        )
    started = time.perf_counter()
    index = {label: i for i, label in enumerate(bench.task.labels)}
    targets = np.array([index[e.example.target] for e in bench.train])
    if len(set(targets.tolist())) < 2:
        raise DataError(f"the training data of {bench.task.spec.name} show one class only")
    hidden = features(bench, bench.train)
    held = features(bench, bench.held_out) if bench.held_out else None
    truth = np.array([index[e.example.target] for e in bench.held_out])
    tried: list[tuple[float, Probe]] = []
    for reading in READINGS if held is not None else (READINGS[0],):
        own = hidden[reading]
        mean, scale = own.mean(0), own.std(0)
        scale[scale == 0] = 1.0
        for strength in STRENGTHS if held is not None else (1.0,):
            fitted = _regression(strength, (own - mean) / scale, targets)
            probe = Probe(bench, reading, strength, mean, scale, fitted, 0.0)
            loss = 0.0
            if held is not None:
                loss = float(-probe.scores(held[reading])[np.arange(len(truth)), truth].mean())
            tried.append((loss, probe))
    best = min(tried, key=lambda pair: pair[0])[1]
    best.seconds = time.perf_counter() - started
    return best


def _regression(strength: float, hidden: Array, targets: NDArray[Any]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=1000).fit(hidden, targets)


@torch.no_grad()
def features(bench: Bench, encoded: Sequence[Encoded]) -> dict[Reading, Array]:
    """The hidden state after the last norm, of each prompt's last token and the mean over its tokens: (N, D) each."""
    model, device = bench.base.model, bench.base.device
    inner = model.base_model
    takes_positions = "position_ids" in inspect.signature(inner.forward).parameters
    pad = pad_id(bench.base.tokenizer)
    found: dict[Reading, Array] = {}
    for batch in by_length([len(e.prompt) for e in encoded], ROWS, TOKENS):
        ids, mask, positions = left_padded([encoded[i].prompt for i in batch], pad, device)
        extra = {"position_ids": positions} if takes_positions else {}
        output = inner(input_ids=ids, attention_mask=mask, use_cache=False, **extra)
        states_BTD = output.last_hidden_state.double()
        mean_BD = (states_BTD * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        both: dict[Reading, torch.Tensor] = {"mean": mean_BD, "last": states_BTD[:, -1]}
        for reading, values in both.items():
            rows = found.setdefault(reading, np.empty((len(encoded), values.shape[1])))
            rows[batch] = values.cpu().numpy()
    return found

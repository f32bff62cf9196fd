"""A training step on prompts with short answers, the head read at every token or before labels alone. `... answers`"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import ctxpeft
from benchmarks.hosts import host, title, tokens
from benchmarks.memory import peak_bytes
from benchmarks.settings import Case, Settings
from benchmarks.timing import FLOOR, interleaved
from ctxpeft.tasks import Answers

VARIANT = "prefix-tuning-plus"
LABELS = 6
NAMES = {FLOOR: "at every token", "alone": "before labels alone"}


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a case: times and peaks of the two, ratios to the first."""
    for case in settings.answered:
        yield {
            "kind": "answers",
            **case.plain(title(case.model)),
            "labels": LABELS,
            "rows": _rows(case, settings),
        }


def _rows(case: Case, settings: Settings) -> list[dict[str, Any]]:
    model = host(case.model, settings.device, getattr(torch, case.dtype), settings.attention)
    handle = ctxpeft.attach(model, VARIANT, seed=0)
    ids = tokens(model, case.batch, case.tokens)
    labels = ids.clone()
    labels[:, :-LABELS] = -100
    functions = {
        FLOOR: partial(_everywhere, model, handle, ids, labels),
        "alone": partial(_alone, model, handle, ids, labels),
    }
    times = interleaved(functions, settings.rounds, settings.device)
    peaks = {name: peak_bytes(function, settings.device) for name, function in functions.items()}
    return [
        {
            "name": said,
            **times[name].plain(),
            "peak_step_bytes": peaks[name],
            "peak_step_ratio": round(peaks[name] / peaks[FLOOR], 4),
        }
        for name, said in NAMES.items()
    ]


def _everywhere(model: Any, handle: Any, ids: Tensor, labels: Tensor) -> None:
    """As transformers takes the loss."""
    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
    _forget(handle)


def _alone(model: Any, handle: Any, ids: Tensor, labels: Tensor) -> None:
    """As `ctxpeft train` takes it."""
    answers = Answers.of(labels)
    with answers.alone(model):
        logits = answers.logits(model(input_ids=ids, use_cache=False).logits)
    answers.loss(model, logits).backward()
    _forget(handle)


def _forget(handle: Any) -> None:
    for parameter in handle.parameters():
        parameter.grad = None

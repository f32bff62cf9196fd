"""The training step: forward, loss and backward down to the first adapted layer. `python -m benchmarks step`"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.hosts import host, title, tokens
from benchmarks.settings import Case, Settings
from benchmarks.subjects import Subject, subjects
from benchmarks.timing import FLOOR, interleaved
from ctxpeft.analysis.cost import Cost, measure


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a case: times of a step, ratios to the floor, and what the cost model says."""
    for case in settings.steps:
        model, measured = opened(case, settings)
        ids = tokens(model, case.batch, case.tokens)
        functions = {s.name: partial(s.step, ids) for s in measured}
        times = interleaved(functions, settings.rounds, settings.device)
        rows: list[dict[str, Any]] = []
        for subject in measured:
            row = {"name": subject.name, "group": subject.group, **times[subject.name].plain()}
            cost = predicted(model, subject, case.tokens)
            if cost is not None:
                count = case.batch * case.tokens
                rows[0]["predicted_flops"] = cost.base.training * count
                row["predicted_flops"] = (
                    cost.base.training + cost.per_token.training
                ) * count + cost.per_pass.training
            rows.append(row)
        yield {"kind": "step", **case.plain(title(case.model)), "rows": rows}


def opened(case: Case, settings: Settings) -> tuple[Any, list[Subject]]:
    """The model of a case and its subjects, compiled where the case says so."""
    model = host(case.model, settings.device, getattr(torch, case.dtype), settings.attention)
    measured = subjects(model, case.only)
    if case.compiled:
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = 64  # of one function, which all subjects share
        for subject in measured:
            subject.compile()
    return model, measured


def predicted(model: Any, subject: Subject, context: int) -> Cost | None:
    """What the cost model says of one of ours, which must have the parameters it says."""
    if subject.group == FLOOR or subject.handle is None:
        return None
    cost = measure(model, subject.handle.variant, context)
    made = subject.handle.num_parameters()
    if cost.trainable != made:
        raise SystemExit(f"{subject.name}: {cost.trainable} parameters predicted, {made} made")
    return cost

"""What training made of a design, by the names a search can want: in a trial, at a rung, on a fresh seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ctxpeft.search.measures import Name
from ctxpeft.search.meter import adapter_bytes

if TYPE_CHECKING:
    from ctxpeft.search.bench import Laboratory
    from ctxpeft.training import RunResult


@dataclass(frozen=True)
class Learned:
    """One run on one task: its held-out metrics, `ood` among them where it was scored, and its folder."""

    metrics: Mapping[str, float]
    folder: Path


def metrics_of(result: RunResult) -> dict[str, float]:
    """The held-out metrics of a run that are numbers; none after divergence."""
    evaluation = result.evaluations.get("validation")
    if evaluation is None:
        return {}
    metrics = {key: value for key, value in evaluation.metrics.items() if math.isfinite(value)}
    if "ood" in result.evaluations:
        metrics["ood"] = result.evaluations["ood"].value
    return metrics


def measured(
    laboratory: Laboratory, names: Sequence[Name], runs: Sequence[Learned], quality: float
) -> dict[str, float]:
    """Those of `names` that training decides, means over tasks; each with its own sign.

    Args:
        laboratory: of the search.
        names: what is wanted; what is known before training is left out.
        runs: one a task.
        quality: what rates and rungs are compared by, over all tasks.
    """
    found: dict[str, float] = {}
    for name in names:
        if name == "loss":
            losses = [run.metrics["token_loss"] for run in runs]
            found[name] = quality if laboratory.job.search.quality == "loss" else fmean(losses)
        elif name == "metric":
            found[name] = fmean(run.metrics[laboratory.metric] for run in runs)
        elif name == "ood":
            found[name] = fmean(run.metrics["ood"] for run in runs)
        elif name == "forgetting":
            found[name] = fmean(laboratory.other_text.increase(run.folder) for run in runs)
        elif name == "bytes":
            found[name] = float(adapter_bytes(runs[0].folder))
    return found

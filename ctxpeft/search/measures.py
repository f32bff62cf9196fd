"""What a search can want of a design: the names, which way is better, and what each costs to know."""

from __future__ import annotations

from typing import Literal

Name = Literal["loss", "metric", "ood", "forgetting", "parameters", "latency", "bytes"]

WHAT: dict[Name, str] = {
    "loss": "held-out loss, nats a token of the answer; over several tasks relative to the frozen model",
    "metric": "the task's main metric on held-out data",
    "ood": "the task's main metric on its out-of-distribution data",
    "forgetting": "what the loss on another text rises by, nats a token",
    "parameters": "trainable parameters",
    "latency": "seconds to decode, divided by the frozen model's",
    "bytes": "size of the adapter's file",
}
TITLE: dict[Name, str] = {
    "loss": "held-out loss",
    "metric": "held-out metric",
    "ood": "out-of-distribution metric",
    "forgetting": "rise of the loss on another text",
    "parameters": "trainable parameters",
    "latency": "time to decode, relative to the frozen model's",
    "bytes": "bytes of the adapter",
}
LEARNED: tuple[Name, ...] = ("loss", "metric", "ood")  # what training improves: one of them must be wanted
OF_THE_DESIGN: tuple[Name, ...] = ("parameters", "latency")  # known before training
AT_A_RUNG: tuple[Name, ...] = ("ood", "forgetting", "bytes")  # measured there beside the loss or the metric


def shown(name: Name, value: float) -> str:
    """A value with as many digits as say something."""
    if name in ("parameters", "bytes"):
        return f"{value:,.0f}"
    return f"{value:.3f}" if name == "latency" else f"{value:.4f}"

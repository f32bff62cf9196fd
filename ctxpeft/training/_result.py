"""What a run leaves behind, in memory and on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctxpeft.files import write_text
from ctxpeft.tasks import Evaluation, Record

RESULT = "result.json"


@dataclass(frozen=True)
class HeldOut:
    """Held-out loss (nats a token of the answer, mean over batches) after `step` steps and `tokens` tokens."""

    step: int
    tokens: int
    loss: float


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    `stopped` says why training ended before its last step: `early` (no better held-out loss), `callback`
    (`on_evaluate` asked), `diverged` (a loss was no number), or None. After `callback` and `diverged` nothing
    is evaluated. `seconds` are training alone, evaluations on held-out loss included.
    """

    method: str
    fingerprint: str
    learning_rate: float
    seed: int
    steps: int
    tokens: int
    seconds: float
    trainable: int
    deployed: int
    train_loss: float | None
    held_out: list[HeldOut]
    stopped: str | None
    config_hash: str
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def best_loss(self) -> float:
        """The lowest held-out loss measured; infinite if there is none."""
        return min((h.loss for h in self.held_out if h.loss == h.loss), default=float("inf"))

    @property
    def last_loss(self) -> float:
        """The held-out loss measured last; infinite after divergence or if there is none."""
        if self.stopped == "diverged" or not self.held_out:
            return float("inf")
        return self.held_out[-1].loss

    def summary(self) -> dict[str, Any]:
        """Plain data without the per-example records."""
        data = asdict(self)
        data["evaluations"] = {name: e.summary() for name, e in self.evaluations.items()}
        return data

    def write(self, folder: Path) -> None:
        """Predictions first, `result.json` last: its presence means finished."""
        for name, evaluation in self.evaluations.items():
            lines = "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in evaluation.records)
            write_text(folder / f"predictions-{name}.jsonl", lines)
        write_text(folder / RESULT, json.dumps(_finite(self.summary()), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunResult:
        """What `write` wrote."""
        data = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        evaluations = {}
        for name, summary in data.pop("evaluations").items():
            lines = (folder / f"predictions-{name}.jsonl").read_text(encoding="utf-8").splitlines()
            del summary["count"]
            evaluations[name] = Evaluation(**summary, records=[Record(**json.loads(line)) for line in lines])
        data["held_out"] = [
            HeldOut(h["step"], h["tokens"], float("inf") if h["loss"] is None else h["loss"])
            for h in data["held_out"]
        ]
        return cls(**data, evaluations=evaluations)


def _finite(value: Any) -> Any:
    """Numbers JSON cannot hold become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value

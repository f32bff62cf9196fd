"""What a design costs beside its score: decoding time, forgetting, bytes; measured once and kept."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ctxpeft.errors import HostError
from ctxpeft.files import write_text
from ctxpeft.spec.variant import Variant

if TYPE_CHECKING:
    from ctxpeft.tasks import Encoder, Example
    from ctxpeft.training import Base

ROUNDS = 9
PROMPT, NEW = 64, 32
WINDOW = 256


def decode_ratio(base: Base, variant: Variant, rounds: int = ROUNDS) -> float:
    """Seconds to decode 32 tokens after 64 with the variant, divided by the frozen model's.

    Greedy, one row, cached. Both are timed in every round, in alternating order, with the variant attached or taken
    off, so that a busy machine slows both; the median of the rounds' ratios is returned.

    Raises:
        HostError: the model cannot generate.
    """
    import ctxpeft

    model = base.model
    if not callable(getattr(model, "generate", None)):
        raise HostError(f"{base.name} cannot generate, so latency cannot be measured")

    def adapted() -> float:
        handle = ctxpeft.attach(model, variant, seed=0)
        try:
            return _seconds(base)
        finally:
            handle.detach()

    def frozen() -> float:
        return _seconds(base)

    order: tuple[Callable[[], float], ...] = (adapted, frozen)
    for timed in order:  # warm up
        timed()
    ratios = []
    gc.disable()
    try:
        for index in range(rounds):
            turn = order if index % 2 else order[::-1]
            seconds = {timed: timed() for timed in turn}
            ratios.append(seconds[adapted] / seconds[frozen])
    finally:
        gc.enable()
    return float(f"{median(ratios):.4g}")


def _seconds(base: Base) -> float:
    import torch

    from ctxpeft.tasks import pad_id

    model = base.model
    size = int(model.config.get_text_config().vocab_size)
    positions = base.positions or PROMPT + NEW
    prompt = max(1, min(PROMPT, positions - NEW))
    ids = (torch.arange(prompt, device=base.device) * 7919 % size).unsqueeze(0)
    options: dict[str, Any] = {"do_sample": False, "use_cache": True, "pad_token_id": pad_id(base.tokenizer)}
    _wait(base)
    began = time.perf_counter()
    with torch.no_grad():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), min_new_tokens=NEW, max_new_tokens=NEW, **options
        )
    _wait(base)
    return time.perf_counter() - began


def _wait(base: Base) -> None:
    import torch

    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)


class Forgetting:
    """Another text, read in windows of 256 tokens, and the loss of the frozen model on it.

    Args:
        base: the model.
        file: text, as `ctxpeft.tasks` reads it (a .txt file, or a column `text`).
        tokens: how much of it is read, from its beginning.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, base: Base, file: str, tokens: int) -> None:
        from ctxpeft.tasks import build_task, load_task
        from ctxpeft.training import encoder_for

        task = build_task(
            load_task(
                {
                    "name": "forgetting",
                    "test": [file],
                    "kind": "language_modelling",
                    "max_length": WINDOW,
                    "generate_limit": 0,
                }
            )
        )
        self.base = base
        self.encoder: Encoder = encoder_for(base, task)
        self.examples: list[Example] = []
        read = 0
        for example in task.test:
            if read >= tokens:
                break
            self.examples.append(example)
            read += sum(len(part.answer) for part in self.encoder.encode([example]))
        ids = "".join(example.id for example in self.examples)
        self.digest = hashlib.sha256(ids.encode()).hexdigest()
        self._frozen: float | None = None

    def loss(self) -> float:
        """Nats a token, of the model as it is now."""
        from ctxpeft.tasks import evaluate

        return evaluate(self.base.model, self.encoder, self.examples).metrics["token_loss"]

    def frozen(self) -> float:
        """Nats a token of the frozen model; measured when it is first asked for."""
        if self._frozen is None:
            self._frozen = self.loss()
        return self._frozen

    def increase(self, run: Path) -> float:
        """What the loss rises by with the adapter of a finished run; kept in the run's folder."""
        import ctxpeft

        kept = run / "forgetting.json"
        if kept.is_file():
            data = json.loads(kept.read_text(encoding="utf-8"))
            if data.get("text") == self.digest:
                return float(data["increase"])
        before = self.frozen()
        handle = ctxpeft.load(self.base.model, run / "adapter")
        try:
            increase = self.loss() - before
        finally:
            handle.detach()
        data = {"text": self.digest, "frozen": before, "increase": increase}
        write_text(kept, json.dumps(data) + "\n")
        return increase


def adapter_bytes(run: Path) -> int:
    """The size of the adapter's weights on disk."""
    return (run / "adapter" / "adapter.safetensors").stat().st_size

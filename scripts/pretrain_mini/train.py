"""The training loop: Muon on the matrices of the layers, AdamW on the embedding and the norms, one machine, CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from scripts.pretrain_mini import checkpoint
from scripts.pretrain_mini.checkpoint import Progress
from scripts.pretrain_mini.model import fresh_model
from scripts.pretrain_mini.muon import Muon
from scripts.pretrain_mini.schedule import Schedule
from scripts.pretrain_mini.streams import Mixture, Stream

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights but the data and the number of steps."""

    seed: int = 20260
    rows: int = 16
    doc_rows: int = 6
    length: int = 256
    warmup: int = 100
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    weight_decay: float = 0.05
    clip: float = 1.0


@dataclass(frozen=True)
class Run:
    """Files and rhythm of one run; it ends at step `steps`."""

    work: Path
    name: str
    steps: int
    save_every: int = 100
    log_every: int = 20
    evaluate_every: int = 200
    compile: bool = True
    threads: int = 2

    @property
    def path(self) -> Path:
        """The checkpoint file of the run."""
        return self.work / f"{self.name}.pt"


def optimizers_of(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the two-dimensional weights of the layers, AdamW without decay for the rest."""
    layers = {id(p) for p in model.model.layers.parameters() if p.ndim == 2}
    hidden = [p for p in model.parameters() if id(p) in layers]
    rest = [p for p in model.parameters() if id(p) not in layers]
    return [
        Muon(hidden, lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(rest, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def loss_function(model: LlamaForCausalLM) -> LossFunction:
    """Mean cross entropy in nats of (B, T) inputs against (B, T) targets, computed under bfloat16 autocast."""

    def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=inputs, use_cache=False).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return loss


def mixture_of(work: Path, recipe: Recipe) -> Mixture:
    """The training batches of a work folder."""
    books, docs = (
        Stream(np.load(work / f"{name}.npy"), recipe.length, recipe.seed + index)
        for index, name in enumerate(("books", "docs"))
    )
    return Mixture(books, docs, recipe.rows, recipe.doc_rows)


def train(run: Run, recipe: Recipe, schedule: Schedule, start: Path | None = None) -> Progress:
    """Train until `run.steps`, resuming the run's own checkpoint, else beginning at `start`, else afresh.

    Appends JSON lines to `<work>/<name>.jsonl`: one when it starts, then at each log point step, tokens, loss in nats
    per token, learning rate factor, gradient norm, tokens per second, and held-out losses at evaluation points.
    """
    torch.set_num_threads(run.threads)
    model = fresh_model(recipe.seed)
    optimizers = optimizers_of(model, recipe)
    base_rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    source = run.path if run.path.exists() else start
    progress = checkpoint.load(source, model, optimizers) if source else Progress()
    mixture = mixture_of(run.work, recipe)
    held_out = mixture_of_held_out(run.work, recipe)
    eager = loss_function(model)
    loss_of: LossFunction = torch.compile(eager) if run.compile else eager
    append(run.work / f"{run.name}.jsonl", {"start": progress.step, "until": run.steps, **vars(recipe)})
    losses: list[float] = []
    for step in range(progress.step, run.steps):
        began = time.perf_counter()
        for group, rate in zip((g for o in optimizers for g in o.param_groups), base_rates, strict=True):
            group["lr"] = rate * schedule.factor(step)
        inputs, targets = mixture.batch(step)
        loss = loss_of(inputs, targets)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        spent = time.perf_counter() - began
        progress = Progress(step + 1, progress.tokens + inputs.numel(), progress.seconds + spent)
        losses.append(loss.item())
        last = progress.step == run.steps
        if progress.step % run.log_every == 0 or last:
            line = {
                **vars(progress),
                "loss": sum(losses) / len(losses),
                "factor": schedule.factor(step),
                "norm": float(norm),
                "tokens_per_second": inputs.numel() / spent,
            }
            if progress.step % run.evaluate_every == 0 or last:
                line |= {name: evaluate(loss_of, batch) for name, batch in held_out.items()}
            append(run.work / f"{run.name}.jsonl", line)
            losses.clear()
        if progress.step % run.save_every == 0 or last:
            checkpoint.save(run.path, model, optimizers, progress)
    return progress


def decay(run: Run, start: Path, steps: int, recipe: Recipe, factor: float = 1.0) -> Progress:
    """Take the rate from `factor` to zero in `steps` steps, on half as many windows of twice the length.

    The windows continue where the stable run's stood: step for step, they hold as many tokens.
    """
    state = torch.load(start, map_location="cpu", weights_only=True)
    first = int(state["progress"]["step"])
    longer = replace(
        recipe,
        length=2 * recipe.length,
        rows=recipe.rows // 2,
        doc_rows=recipe.doc_rows // 2,
    )
    return train(
        replace(run, steps=first + steps), longer, Schedule(recipe.warmup, first, steps, factor), start
    )


def mixture_of_held_out(work: Path, recipe: Recipe) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """One fixed batch of each held-out stream, of the shape of a training batch."""
    batches = {}
    for name in ("held_out_books", "held_out_docs"):
        stream = Stream(np.load(work / f"{name}.npy"), recipe.length, recipe.seed)
        batches[name] = Mixture(stream, stream, recipe.rows, 0).batch(0)
    return batches


@torch.no_grad()
def evaluate(loss_of: LossFunction, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The loss in nats per token of a batch."""
    return loss_of(*batch).item()


def append(path: Path, line: dict[str, float]) -> None:
    """Add one JSON line to a log."""
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")

"""Several adapters trained in one pass over the frozen base: each row of the batch goes to its own adapter.

Nothing but the frozen base is shared: an adapter has its own batch, loss, optimizer, schedule and clipping, and takes
the steps it would take alone. A module reads the rows of its adapter and no others, so one pass does the work of the
separate passes and not more; it is faster where a small batch leaves the machine idle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.passes import IGNORED
from ctxpeft.hosts.routing import route
from ctxpeft.tasks import Answers

Batch = Mapping[str, Tensor]
PADDING = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED}


@dataclass
class Member:
    """One adapter in training: its optimizer, and what comes with it.

    max_grad_norm: the norm its gradient is clipped to, None for no clipping. diverged: its loss or gradient was not
    finite once; it took no step since.
    """

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    max_grad_norm: float | None = 1.0
    diverged: bool = False


@dataclass
class Together:
    """Trains the named adapters of a causal language model side by side.

    together = Together(model, {"a": Member(AdamW(a.parameters(), lr=1e-3)), "b": Member(AdamW(b.parameters()))})
    losses = together.step({"a": batch_a, "b": batch_b})

    Raises HostError for a name that is not attached or is an HF PEFT tuner, which cannot be routed by row.
    """

    model: Any
    members: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        controller_of(self.model).check(list(self.members))
        with route(self.model, list(self.members)):
            pass

    def running(self) -> list[str]:
        """The members that have not diverged."""
        return [name for name, member in self.members.items() if not member.diverged]

    def step(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """One optimizer step of every running member on its own batch; the losses before it.

        A batch holds input_ids, labels and, where rows are padded on the right, attention_mask, each (B, T); B and T
        may differ between members. The loss is the model's own: the mean over the tokens with a label. A member
        whose loss or gradient is not finite stops here, takes no step, and its loss is reported as it was.

        Raises HostError if a running member has no batch.
        """
        names = self.running()
        for name in names:
            if name not in batches:
                raise HostError(f"'{name}' is trained here and has no batch")
        losses = self._losses(names, batches)
        found = {name: float(loss.detach()) for name, loss in losses.items()}
        if not all(map(math.isfinite, found.values())):
            return self._without_the_diverged(names, batches)
        if losses:
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        norms = {name: _norm(self._parameters(name)) for name in names}
        if not all(map(math.isfinite, norms.values())):
            self._forget_gradients(names)
            return self._without_the_diverged(names, batches)
        for name in names:
            self._advance(self.members[name], self._parameters(name), norms[name])
        return found

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """The loss of every running member on its own batch, without training."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return {n: float(loss) for n, loss in self._losses(self.running(), batches).items()}
        finally:
            self.model.train(training)

    def _losses(self, names: Sequence[str], batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Each member's loss, from one pass over all rows."""
        if not names:
            return {}
        parts = {name: _whole(batches[name]) for name in names}
        length = max(part["input_ids"].shape[1] for part in parts.values())
        joined = {
            key: torch.cat([_padded(part[key], length, value) for part in parts.values()])
            for key, value in PADDING.items()
        }
        answers = Answers.of(joined.pop("labels"))
        sizes = [part["input_ids"].shape[0] for part in parts.values()]
        rows = [name for name, size in zip(parts, sizes, strict=True) for _ in range(size)]
        with route(self.model, rows), answers.alone(self.model):
            logits = answers.logits(self.model(**joined, use_cache=False).logits)
        return {
            name: mine.loss(self.model, logits[where])
            for name, (mine, where) in zip(parts, answers.divided(sizes), strict=True)
        }

    def _without_the_diverged(self, names: Sequence[str], batches: Mapping[str, Batch]) -> dict[str, float]:
        """Find the members that are not finite by themselves, stop them, and take the step with the others.

        In one pass a value that is not finite can reach the rows of others; alone it cannot.
        """
        told = {}
        for name in names:
            loss = self._losses([name], batches)[name]
            loss.backward()  # type: ignore[no-untyped-call]
            if not (math.isfinite(float(loss.detach())) and math.isfinite(_norm(self._parameters(name)))):
                self.members[name].diverged = True
                told[name] = float(loss.detach())
            self._forget_gradients([name])
        if told:
            return {**told, **self.step(batches)}
        return {name: self.step_alone(name, batches[name]) for name in names}

    def step_alone(self, name: str, batch: Batch) -> float:
        """The step of one member by itself; its loss before it."""
        loss = self._losses([name], {name: batch})[name]
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = self._parameters(name)
        self._advance(self.members[name], parameters, _norm(parameters))
        return float(loss.detach())

    def _advance(self, member: Member, parameters: list[nn.Parameter], norm: float) -> None:
        if member.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, member.max_grad_norm, torch.tensor(norm))
        member.optimizer.step()
        if member.scheduler is not None:
            member.scheduler.step()
        member.optimizer.zero_grad()

    def _parameters(self, name: str) -> list[nn.Parameter]:
        return list(controller_of(self.model).handles[name].parameters())

    def _forget_gradients(self, names: Sequence[str]) -> None:
        for name in names:
            for parameter in self._parameters(name):
                parameter.grad = None


def _whole(batch: Batch) -> dict[str, Tensor]:
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    return {
        "input_ids": ids,
        "labels": batch["labels"],
        "attention_mask": torch.ones_like(ids) if mask is None else mask,
    }


def _padded(t: Tensor, length: int, value: int) -> Tensor:
    return functional.pad(t, (0, length - t.shape[1]), value=value)


def _norm(parameters: Sequence[nn.Parameter]) -> float:
    """The norm of a gradient, as the Trainer's clipping takes it."""
    grads = [p.grad for p in parameters if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(grads))

"""The head of a language model read at the tokens before a label, and nowhere else.

What would follow a prompt's own tokens enters no loss. Where the vocabulary is large their logits are much of the
memory and of the time of a step (docs/performance, "Training on answers").

Shapes: B rows, T tokens, N of them followed by a label, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.hosts.passes import IGNORED, if_attached


@dataclass(frozen=True)
class Answers:
    """Which tokens of a batch are followed by a label, and by which.

    places: (N,) of the flattened batch, in order; rows: (N,) theirs; targets: (N,) the labels.
    """

    labels: Tensor
    places: Tensor
    targets: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> Answers:
        """From labels (B, T) as transformers takes them: a token's own id, or -100."""
        following = functional.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        places = (following != IGNORED).nonzero().squeeze(1)
        return cls(labels, places, following[places])

    @property
    def rows(self) -> Tensor:
        """(N,) the row of each."""
        return self.places // self.labels.shape[1]

    def divided(self, sizes: Sequence[int]) -> list[tuple[Answers, slice]]:
        """Those of each of several batches that make up this one, by their numbers of rows; and which of (N,)."""
        ends = torch.searchsorted(self.rows, torch.tensor(sizes, device=self.rows.device).cumsum(0)).tolist()
        parts = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
        return [(Answers(self.labels, self.places[s], self.targets[s]), s) for s in parts]

    @contextlib.contextmanager
    def alone(self, model: Any) -> Iterator[None]:
        """Inside the block the head of the model is given no other token, so that logits are (1, N, V).

        Where the head cannot be told, or what it is given is not (B, T, width), logits are as always.
        """
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        hook = head.register_forward_pre_hook(self._chosen) if isinstance(head, nn.Module) else None
        try:
            with if_attached(model, self.labels != IGNORED):
                yield
        finally:
            if hook is not None:
                hook.remove()

    def _chosen(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not given or not isinstance(given[0], Tensor) or given[0].shape[:-1] != self.labels.shape:
            return None
        return given[0].flatten(0, 1)[self.places][None], *given[1:]

    def logits(self, given: Tensor) -> Tensor:
        """(N, V), from what the model gave inside the block."""
        if given.shape[:2] == (1, len(self.places)):
            return given[0]
        return given.flatten(0, 1)[self.places]

    def loss(self, model: Any, logits: Tensor, items: Tensor | int | None = None) -> Tensor:
        """The model's loss function of (N, V): the mean over the labels, or their sum divided by `items`."""
        targets = self.targets[None]
        loss: Tensor = model.loss_function(
            logits=logits[None],
            labels=targets,
            shift_labels=targets,
            vocab_size=logits.shape[-1],
            num_items_in_batch=items,
        )
        return loss


TOLERANCE = 5e-3
"""Relative, of a loss in bfloat16 whose logits were computed in another shape."""


@torch.no_grad()
def takes_answers_alone(model: Any, batch: Mapping[str, Tensor]) -> bool:
    """Whether the model's own loss on a batch with labels is that of `Answers`.

    It is not where the model adds to its loss (of its router, say), smooths or scales it, or has no head to be told.
    """
    if model.get_output_embeddings() is None or not callable(getattr(model, "loss_function", None)):
        return False
    training = model.training
    answers = Answers.of(batch["labels"])
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    try:
        model.eval()
        whole = model(**batch).loss
        with answers.alone(model):
            given = model(**inputs).logits
        if given.shape[:2] != (1, len(answers.places)):
            return False
        ours = answers.loss(model, answers.logits(given))
        return bool(torch.isclose(ours, whole, rtol=TOLERANCE, atol=1e-6, equal_nan=True))
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return False
    finally:
        model.train(training)

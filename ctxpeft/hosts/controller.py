"""Which adapters act in a forward pass: the live state of a model, and the plan that one pass captures from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError, did_you_mean

if TYPE_CHECKING:
    from ctxpeft.hosts.handle import BaseHandle

ATTRIBUTE = "_ctxpeft"


class Plan(NamedTuple):
    """The adapters that act, in order; with routing, the adapter of each row of the batch."""

    names: tuple[str, ...]
    rows: tuple[str | None, ...] | None = None

    def mask(self, name: str, batch: int, device: torch.device) -> Tensor | None:
        """(B,) of 0 and 1 for one adapter, or None when it serves every row. Beams share the row of their prompt."""
        if self.rows is None:
            return None
        if batch % len(self.rows):
            raise HostError(f"route names {len(self.rows)} rows and the batch has {batch}")
        repeat = batch // len(self.rows)
        return torch.tensor([r == name for r in self.rows for _ in range(repeat)], device=device)


class Controller:
    """The adapters of one model."""

    def __init__(self) -> None:
        self.handles: dict[str, BaseHandle] = {}
        self.active: tuple[str, ...] = ()
        self.silenced: list[str] = []
        self.routed: tuple[str | None, ...] | None = None

    def plan(self) -> Plan:
        """What a forward pass that starts now will do."""
        if self.routed is not None:
            order = dict.fromkeys(r for r in self.routed if r is not None)
            return Plan(tuple(n for n in order if n not in self.silenced), self.routed)
        return Plan(tuple(n for n in self.active if n not in self.silenced))

    def check(self, names: Sequence[str | None]) -> None:
        """Raises HostError if a name is not attached, or is an HF PEFT adapter where only ours can go."""
        for name in names:
            if name is not None and name not in self.handles:
                raise HostError(f"no adapter called '{name}' is attached{did_you_mean(name, self.handles)}")

    @contextlib.contextmanager
    def silence(self, name: str) -> Iterator[None]:
        """Inside the block the adapter does nothing."""
        self.silenced.append(name)
        try:
            yield
        finally:
            self.silenced.remove(name)


def controller_of(model: nn.Module, create: bool = False) -> Controller:
    """The controller of a model. Raises HostError if nothing is attached and `create` is false."""
    found = model.__dict__.get(ATTRIBUTE)
    if found is None:
        if not create:
            raise HostError("no ctxpeft adapter is attached to this model")
        found = Controller()
        model.__dict__[ATTRIBUTE] = found
    assert isinstance(found, Controller)
    return found

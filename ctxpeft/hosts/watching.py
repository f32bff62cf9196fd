"""What the modules of an adapter contribute in a forward pass, for instruments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import Contribution
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.handle import Handle


@dataclass(frozen=True)
class Sight:
    """One module in one layer in one pass, detached.

    layer: counted from 0, None at the embeddings. place: of the module in its variant's list. output (B, H, T, dv):
    the content o before any merge; change, weight, gate: see `Contribution`.
    """

    layer: int | None
    place: int
    output: Tensor
    change: Tensor
    weight: Tensor | None
    gate: Tensor | None


@contextlib.contextmanager
def watching(handle: Handle) -> Iterator[list[Sight]]:
    """Inside the block every forward pass leaves what the adapter's modules did in the list. The list only grows: clear
    it between passes. Raises HostError if the adapter is detached."""
    places = {id(built.module): built.place for built in handle.built}
    sights: list[Sight] = []

    def see(layer: int | None, capture: Capture, part: Contribution) -> None:
        place = places.get(id(part.module))
        if place is not None:
            gate = None if part.gate is None else part.gate.detach()
            weight = None if part.weight is None else part.weight.detach()
            sights.append(Sight(layer, place, capture.output.detach(), part.change.detach(), weight, gate))

    with watched(handle.model, see):
        yield sights


@contextlib.contextmanager
def watched(model: nn.Module, see: Callable[[int | None, Capture, Contribution], None]) -> Iterator[None]:
    """Inside the block every module that acts in a pass tells its layer, what it looked at and what it did."""
    controller = controller_of(model)
    before, controller.watch = controller.watch, see
    try:
        yield
    finally:
        controller.watch = before

"""Which adapters act in a forward pass: the live state of a model, and the plan that one pass captures from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError, did_you_mean
from ctxpeft.hosts.backend import unchanged
from ctxpeft.hosts.rows import Rows

if TYPE_CHECKING:
    from ctxpeft.blocks.capture import Capture
    from ctxpeft.blocks.compose import Contribution, Watch
    from ctxpeft.blocks.states import TextStates
    from ctxpeft.hosts.handle import BaseHandle
    from ctxpeft.hosts.passes import Pass
    from ctxpeft.hosts.seam import Seam

ATTRIBUTE = "_ctxpeft"
DEVICES = ("cpu", "cuda", "mps", "xpu")
"""What a part of a model may be on, for autocast; the device of a pass is not that of all its parts."""


class Plan(NamedTuple):
    """The adapters that act, in order; with routing, the adapter of each row of the batch; the facts of the pass.

    quiet: it began where nobody else has a say: no gradients, instrument, autocast, compiler or transform, and
    transformers' own function for sdpa.
    """

    names: tuple[str, ...]
    rows: Rows | None = None
    facts: Pass | None = None
    quiet: bool = False

    def mask(self, name: str, tokens: str, batch: int, device: torch.device) -> Tensor | None:
        """Where a module of an adapter acts, booleans (B, 1 or T), or None for everywhere.

        `tokens` is the module's `scope.tokens`. Beams share the row of their prompt.
        """
        served, mine = self._rows(name, batch, device), self.token_mask(tokens, device)
        if served is None or mine is None:
            return served if mine is None else mine
        return mine & served

    def token_mask(self, tokens: str, device: torch.device) -> Tensor | None:
        """Which tokens a module of that `scope.tokens` acts on, booleans (B, T), or None for all."""
        if tokens == "all":
            return None
        generated = self.known().generated().to(device)
        return generated if tokens == "generated" else ~generated

    def _rows(self, name: str, batch: int, device: torch.device) -> Tensor | None:
        if self.rows is None:
            return None
        return self.rows.index(batch, device)[:, None] == self.rows.names.index(name)

    def positions(self) -> Tensor:
        """The positions of the tokens of this pass, (B, T) or (1, T), from 0."""
        return self.known().positions()

    def continues(self) -> bool | None:
        """Whether the pass goes on with a cache; None where nothing may be kept from pass to pass: with gradients,
        under a compiler, where only the device knows, in a part of the model that was called by itself."""
        if (
            self.facts is None
            or torch.is_grad_enabled()
            or (not self.quiet and torch.compiler.is_compiling())
        ):
            return None
        length = self.facts.length
        return length > 0 if isinstance(length, int) else None

    def known(self) -> Pass:
        """The facts of the pass. Raises HostError inside a part of the model that was called by itself."""
        if self.facts is None:
            raise HostError(
                "this variant needs to see the whole forward pass (its scope.tokens, or its positions): call the model "
                "that it was attached to, not a part of it"
            )
        return self.facts


class Controller:
    """The adapters of one model."""

    def __init__(self) -> None:
        self.handles: dict[str, BaseHandle] = {}
        self.active: tuple[str, ...] = ()
        self.silenced: list[str] = []
        self.routed: Rows | None = None
        self.last_rows: Rows | None = None
        self.segments: Tensor | None = None
        self.plans: list[Plan] = []
        self.seams: dict[int, Seam] = {}
        self.recording: dict[int, TextStates] | None = None
        self.watch: Callable[[int | None, Capture, Contribution], None] | None = None

    def plan(self) -> Plan:
        """What the forward pass that runs now does, or one that would begin now."""
        if self.plans and self.recording is None:
            return self.plans[-1]
        return self.begun(self.plans[-1].facts if self.plans else None)

    def begun(self, facts: Pass | None) -> Plan:
        """What a forward pass with these facts does if it begins now."""
        names = self.active if self.routed is None else self.routed.names
        if self.silenced:
            names = tuple(n for n in names if n not in self.silenced)
        return Plan(names, self.routed, facts, self._is_quiet(facts))

    def _is_quiet(self, facts: Pass | None) -> bool:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        if facts is None or self.watch is not None or self.recording is not None or transformed():
            return False
        return unchanged() and not any(map(torch.is_autocast_enabled, DEVICES))

    def watch_at(self, layer: int | None) -> Watch | None:
        """Who is told what the modules of a layer contribute, None for nobody."""
        watch = self.watch
        return None if watch is None else lambda capture, part: watch(layer, capture, part)

    def check(self, names: Sequence[str | None]) -> None:
        """Raises HostError if a name is not attached, or is an HF PEFT adapter where only ours can go."""
        for name in names:
            if name is not None and name not in self.handles:
                raise HostError(f"no adapter called '{name}' is attached{did_you_mean(name, self.handles)}")

    @contextlib.contextmanager
    def record(self) -> Iterator[dict[int, TextStates]]:
        """Inside the block no adapter acts, and every served layer leaves its states in the mapping."""
        before = self.active, self.routed
        self.active, self.routed = (), None
        found: dict[int, TextStates] = {}
        self.recording = found
        try:
            yield found
        finally:
            self.recording = None
            self.active, self.routed = before

    @contextlib.contextmanager
    def silence(self, name: str) -> Iterator[None]:
        """Inside the block the adapter does nothing."""
        self.silenced.append(name)
        try:
            yield
        finally:
            self.silenced.remove(name)


def transformed() -> bool:
    """Whether `torch.vmap` or another transform of functions runs: in it some tensors take many values, and what takes
    one cannot be written to with them."""
    return not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None


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

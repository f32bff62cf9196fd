"""The modules of all adapters at one module of the host, and their merge into what that module computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.blocks.attention import Question
from ctxpeft.blocks.capture import Capture, choose
from ctxpeft.blocks.compose import (
    Active,
    Parts,
    Watch,
    add_behind,
    compose,
    compose_jointly,
    joinable,
    read_all,
)
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.side_by_side import one_row, one_row_asked
from ctxpeft.hosts.controller import Plan
from ctxpeft.hosts.divided import Acting, Divided
from ctxpeft.hosts.short import Short


class Acts(NamedTuple):
    """The modules that act at a site, by adapter, in order; an adapter without modules is not there.

    past: those that pass the output projection by. everywhere: all of `acting`, where each acts on all tokens, else
    None. joins: they are served by `compose_jointly`. reads_log_mass: one of all reads the log-mass of the content.
    brief: each may go the short way at the heads, and acts on all tokens. short: all of them, where they may together.
    """

    acting: Acting
    past: Acting
    everywhere: list[Active] | None
    joins: bool
    reads_log_mass: bool
    brief: bool = False
    short: Short | None = None

    @classmethod
    def of(cls, modules: Acting) -> Acts:
        """The modules of every adapter, told apart."""
        acting, past = _chosen(modules, True), _chosen(modules, False)
        active: list[Active] = []
        everywhere, reads = True, False
        for of in modules.values():
            for module in of:
                reads = reads or module.reads_log_mass
        for of in acting.values():
            for module in of:
                active.append((module, None))
                everywhere = everywhere and module.spec.scope.tokens == "all"
        joins = everywhere and not past and joinable(active)
        brief = everywhere and not past and all(m.alone or m.weighed or m.adds for m, _ in active)
        short = Short.of([module for module, _ in active]) if brief else None
        return cls(acting, past, active if everywhere else None, joins, reads, brief, short)


def _chosen(modules: Acting, projected: bool) -> Acting:
    """Those that go through the output projection, or those that pass it by."""
    found: Acting = {}
    for name, of in modules.items():
        mine = [m for m in of if m.spec.projected == projected]
        if mine:
            found[name] = mine
    return found


class Site(nn.Module):
    """A submodule of the host's module, so that devices and shards follow."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.known: dict[tuple[tuple[str, ...], str], Acts] = {}

    def add(self, name: str, key: str, module: nn.Module) -> None:
        """Put a module under an adapter's name; `key` is its place in the variant's list."""
        if name not in self.adapters:
            self.adapters[name] = nn.ModuleDict()
        group: nn.ModuleDict = self.adapters[name]  # type: ignore[assignment]
        group[key] = module
        self.known.clear()

    def forget(self, name: str) -> None:
        """Drop the modules of an adapter."""
        if name in self.adapters:
            del self.adapters[name]
            self.known.clear()

    def modules_of(self, name: str) -> list[ContextModule]:
        """The modules of an adapter, in order."""
        return list(self.adapters[name].children()) if name in self.adapters else []  # type: ignore[arg-type]

    def acts(self, names: tuple[str, ...], site: str) -> Acts:
        """The modules that act at a site of the spec for these adapters. What a compiler sees is not kept."""
        if torch.compiler.is_compiling():
            return self._acts(names, site)
        found = self.known.get((names, site))
        if found is None:
            found = self.known[names, site] = self._acts(names, site)
        return found

    def _acts(self, names: tuple[str, ...], site: str) -> Acts:
        return Acts.of({name: [m for m in self.modules_of(name) if m.spec.site == site] for name in names})


def merge(capture: Capture, acts: Acts, plan: Plan, watch: Watch | None) -> tuple[Tensor, Tensor | None]:
    """What `compose` returns for all adapters that act at a site."""
    if plan.rows is None and acts.everywhere is not None:
        return compose(capture, acts.everywhere, watch)
    divided = _divided(capture.output, acts, plan, watch)
    outputs: list[Tensor] = []
    weights: list[Tensor | None] = []
    for number, (chosen, active) in enumerate(divided.parts):
        part = capture if chosen is None else capture.rows(chosen)
        output, weight = part.output, None
        if number in divided.aside:
            output, weight = compose(one_row(part), active)
            output = output.view(part.output.shape)
            weight = None if weight is None else weight.view(output.shape[:3])
        elif active:
            output, weight = compose(part, active, watch)
        outputs.append(output)
        weights.append(weight)
    told = [weight for weight in weights if weight is not None]
    if not told:
        return divided.join(outputs), None
    whole = [
        output.new_ones(output.shape[:3], dtype=told[0].dtype) if weight is None else weight
        for output, weight in zip(outputs, weights, strict=True)
    ]
    return divided.join(outputs), divided.join(whole)


def joined(
    capture: Capture, acts: Acts, plan: Plan, watch: Watch | None, ask: Callable[[], Question]
) -> Tensor | None:
    """What `compose_jointly` makes of the content and all adapters that act at the heads, transposed to (B, T, H, dv);
    None where they are to be merged into the content's own output instead."""
    if not acts.joins or watch is not None:
        return None
    active = acts.everywhere
    if plan.rows is None:
        assert active is not None
        return compose_jointly(capture, active, ask()).transpose(1, 2)
    active = _divided(capture.output, acts, plan, watch).whole()
    asked = None if active is None else ask()
    if active is None or asked is None or (asked.mask is not None and capture.output.shape[2] > 1):
        return None  # one mask for all heads would become one a head
    merged = compose_jointly(one_row(capture), active, one_row_asked(asked))
    return merged.view(capture.output.shape).transpose(1, 2)


def _divided(output: Tensor, acts: Acts, plan: Plan, watch: Watch | None) -> Divided:
    """Who acts on which rows; where nothing is trained, adapters of one structure are read at once."""
    read_only = watch is None and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    divide = Divided.side_by_side if read_only else Divided.of
    return divide(acts.acting, plan, output.shape[0], output.device)


@dataclass(frozen=True)
class Behind:
    """Reads that pass the output projection by: made where the heads are seen, added to what the projection made."""

    divided: Divided
    reads: list[list[Parts]]

    @classmethod
    def of(cls, capture: Capture, acting: Acting, plan: Plan) -> Behind:
        """What the modules answer to the capture at the heads."""
        divided = Divided.of(acting, plan, capture.output.shape[0], capture.output.device)
        parts = (
            (capture if chosen is None else capture.rows(chosen), active) for chosen, active in divided.parts
        )
        return cls(divided, [read_all(part, active) for part, active in parts])

    def add(self, states: Tensor, heads: int, watch: Watch | None) -> Tensor:
        """(B, T, D) of `heads` heads with the reads added."""
        chosen = [rows for rows, _ in self.divided.parts]
        parts = [states if rows is None else choose(states, rows) for rows in chosen]
        added = [
            add_behind(part, reads, heads, watch) if reads else part
            for part, reads in zip(parts, self.reads, strict=True)
        ]
        return self.divided.join(added)

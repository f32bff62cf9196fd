"""The modules of all adapters at one module of the host, and their merge into what that module computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, Chosen, choose
from ctxpeft.blocks.compose import Active, Parts, Watch, add_behind, compose, joinable, read_all
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.controller import Plan
from ctxpeft.hosts.rows import Shares

Acting = dict[str, list[ContextModule]]


class Acts(NamedTuple):
    """The modules that act at a site, by adapter, in order; an adapter without modules is not there.

    past: those that pass the output projection by. everywhere: all of `acting`, where each acts on all tokens, else
    None. joins: they are served by `compose_jointly`. reads_log_mass: one of all reads the log-mass of the content.
    """

    acting: Acting
    past: Acting
    everywhere: list[Active] | None
    joins: bool
    reads_log_mass: bool

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
        return cls(acting, past, active if everywhere else None, joins, reads)


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


@dataclass(frozen=True)
class Divided:
    """Who acts on which rows of a batch: with routing each adapter on its own, else all on all of them.

    A compiled pass reads all rows under a mask instead, so that its graph does not depend on the assignment.
    """

    shares: Shares | None
    parts: list[tuple[Chosen | None, list[Active]]]

    @classmethod
    def of(cls, acting: Acting, plan: Plan, batch: int, device: torch.device) -> Divided:
        """The division of a batch of this size."""
        if plan.rows is None or torch.compiler.is_compiling():
            active = [
                (module, plan.mask(name, module.spec.scope.tokens, batch, device))
                for name, modules in acting.items()
                for module in modules
            ]
            return cls(None, [(None, active)])
        shares = plan.rows.shares(batch, frozenset(acting), device)
        parts: list[tuple[Chosen | None, list[Active]]] = []
        for name, chosen in shares.parts:
            mine: list[Active] = []
            for module in acting[name] if name is not None else ():
                mask = plan.token_mask(module.spec.scope.tokens, device)
                mine.append((module, None if mask is None else choose(mask, chosen)))
            parts.append((chosen, mine))
        return cls(shares, parts)

    def join(self, parts: list[Tensor]) -> Tensor:
        """(B, ...) in the order of the batch, from one tensor for each part."""
        return parts[0] if self.shares is None else self.shares.join(parts)


def merge(capture: Capture, acts: Acts, plan: Plan, watch: Watch | None) -> tuple[Tensor, Tensor | None]:
    """What `compose` returns for all adapters that act at a site."""
    if plan.rows is None and acts.everywhere is not None:
        return compose(capture, acts.everywhere, watch)
    divided = Divided.of(acts.acting, plan, capture.output.shape[0], capture.output.device)
    outputs: list[Tensor] = []
    weights: list[Tensor | None] = []
    for chosen, active in divided.parts:
        part = capture if chosen is None else capture.rows(chosen)
        output, weight = compose(part, active, watch) if active else (part.output, None)
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

"""Which modules act on which rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctxpeft.blocks.capture import Chosen, choose
from ctxpeft.blocks.compose import Active
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.side_by_side import side_by_side, structure
from ctxpeft.blocks.unchanged import Unchanged
from ctxpeft.hosts.controller import Plan
from ctxpeft.hosts.rows import Rows, Shares
from ctxpeft.hosts.short import Short

Acting = dict[str, list[ContextModule]]


@dataclass(frozen=True)
class Divided:
    """Who acts on which rows of a batch: with routing each adapter on its own, else all on all of them.

    A compiled pass reads all rows under a mask instead, so that its graph does not depend on the assignment. aside: the
    parts whose modules are those of all their rows, side by side (`ctxpeft.blocks.side_by_side`). short: the modules of
    all rows, where the batch is one such part and they may go the short way.
    """

    shares: Shares | None
    parts: list[tuple[Chosen | None, list[Active]]]
    aside: frozenset[int] = frozenset()
    short: Short | None = None

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
        shares = plan.rows.shares(batch, {name: name for name in acting}, device)
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

    def whole(self) -> list[Active] | None:
        """The modules of all rows side by side, where the batch is one such part."""
        return self.parts[0][1] if self.aside and len(self.parts) == 1 else None

    @classmethod
    def side_by_side(cls, acting: Acting, plan: Plan, batch: int, device: torch.device) -> Divided:
        """The division for a pass that trains nothing: adapters of one structure are read as one, from copies of their
        parameters that are made once for the rows of a batch and again when one of them has changed."""
        if plan.rows is None:
            return cls.of(acting, plan, batch, device)
        key = (id(acting), batch, device)
        kept = plan.rows.kept.get(key)
        if not isinstance(kept, _Kept) or kept.acting is not acting or not kept.holds():
            kept = plan.rows.kept[key] = _Kept(acting, plan.rows, batch, device)
        return cls.of(acting, plan, batch, device) if kept.divided is None else kept.divided


class _Kept:
    """The division of one batch at one site, and the tensors that it was made of; None where it gains nothing."""

    def __init__(self, acting: Acting, rows: Rows, batch: int, device: torch.device) -> None:
        self.acting = acting
        modules = [module for of in acting.values() for module in of]
        self.tensors = Unchanged(modules)
        self.divided: Divided | None = None
        if self.tensors.known and all(module.spec.scope.tokens == "all" for module in modules):
            self.divided = _laid_out(acting, rows, batch, device, _alike(acting, rows))

    def holds(self) -> bool:
        """Asked at every site in every pass, of every adapter of the batch."""
        return self.tensors.holds()


def _alike(acting: Acting, rows: Rows) -> dict[str, str]:
    """The adapters of the rows, each with the first one of its structure."""
    labels: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name in rows.names:
        mine = acting.get(name)
        if mine is not None:
            found = tuple(structure(module) for module in mine)
            labels[name] = name if None in found else first.setdefault(found, name)
    return labels


def _laid_out(
    acting: Acting, rows: Rows, batch: int, device: torch.device, labels: dict[str, str]
) -> Divided | None:
    """The parts of a batch, those of adapters with one label as one part; None where no two are."""
    if len(set(labels.values())) == len(labels):
        return None
    shares = rows.shares(batch, labels, device)
    parts: list[tuple[Chosen | None, list[Active]]] = []
    aside = set()
    for label, chosen in shares.parts:
        modules = [] if label is None else acting[label]
        names = [] if label is None else rows.of(batch, chosen)
        if len(set(names)) > 1:
            laid = [side_by_side([acting[n][place] for n in names]) for place in range(len(modules))]
            modules = [module for module in laid if module is not None]
            if len(modules) < len(laid):
                apart = {name: name if of == label else of for name, of in labels.items()}
                return _laid_out(acting, rows, batch, device, apart)
            aside.add(len(parts))
        parts.append((chosen, [(module, None) for module in modules]))
    short = Short.of([module for module, _ in parts[0][1]]) if aside and len(parts) == 1 else None
    return Divided(shares, parts, frozenset(aside), short)

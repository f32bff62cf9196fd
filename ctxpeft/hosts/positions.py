"""The content's positions, shifted by the slots that stand before it (`memory.position: offset`)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import Plan
from ctxpeft.hosts.passes import Pass
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.variant import Variant

NAME = "position_ids"


def module_shift(spec: ModuleSpec, turnable: bool) -> int:
    """By how many positions a module asks the content to start later."""
    placed = getattr(spec.memory, "placed", None)
    if placed is None or placed(turnable) != "offset":
        return 0
    return int(spec.memory.total())  # type: ignore[attr-defined]


def content_shift(variant: Variant, turnable: bool) -> int:
    """The shift of a variant. Its slots share positions 0 to P-1, so it is that of the longest."""
    return max((module_shift(spec, turnable) for spec in variant.modules), default=0)


def check_shiftable(model: nn.Module, spec: ModuleSpec, turnable: bool) -> None:
    """Raises HostError where a module needs shifted positions and the model's forward takes none."""
    if module_shift(spec, turnable) and NAME not in inspect.signature(model.forward).parameters:
        raise HostError(
            f"position 'offset' shifts the positions of the content; the forward of {type(model).__name__} takes no "
            f"'{NAME}'; slots with position 'raw' work"
        )


def plan_shift(plan: Plan, shifts: Mapping[str, int], facts: Pass) -> int | Tensor:
    """The shift of a pass: that of the longest active adapter, or (B, 1), each row that of its own adapter."""
    of = {name: shifts.get(name, 0) for name in plan.names}
    if plan.rows is None or not any(of.values()):
        return max([0, *of.values()])
    each = [of.get(name, 0) for name in plan.rows.names] + [
        0
    ]  # the last is that of rows without an adapter, -1
    index = plan.rows.index(facts.shape()[0], facts.device())
    return torch.tensor(each, device=facts.device())[index][:, None]


def shifted(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str], facts: Pass, shift: int | Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the model with its position ids shifted; where none are given, those that transformers' causal
    models take then: in order, after what the cache holds."""
    told = facts.given.get(NAME)
    if not isinstance(told, Tensor):
        tokens = facts.shape()[1]
        told = torch.arange(facts.cached, facts.cached + tokens, device=facts.device())[None]
    at = names.index(NAME)
    if at < len(args):
        return (*args[:at], told + shift, *args[at + 1 :]), kwargs
    return args, {**kwargs, NAME: told + shift}

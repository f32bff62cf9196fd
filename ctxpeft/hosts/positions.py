"""The content's positions, shifted by the slots that stand before it (`memory.position: offset`)."""

from __future__ import annotations

import inspect
import re
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
_POSITIONS = re.compile(r"pos|wpe")


class OutOfPositionsError(HostError):
    """A text that is too long behind slots for the positions a model has."""


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


def learned_positions(model: nn.Module) -> int | None:
    """How many positions a model has embeddings of; None where positions are not learned, so that they never end."""
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int):
        return None
    tables = [m for n, m in model.named_modules() if isinstance(m, nn.Embedding) and _POSITIONS.search(n)]
    return most if any(most <= table.num_embeddings <= most + 2 for table in tables) else None


def check_room(model: nn.Module, tokens: int) -> None:
    """Raises OutOfPositionsError where virtual tokens are more than the positions a model has learned."""
    room = learned_positions(model)
    if room is not None and tokens > room:
        raise OutOfPositionsError(
            f"{tokens} virtual tokens need as many positions, and the model has {room}; use fewer of them"
        )


def shifted(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: list[str],
    facts: Pass,
    shift: int | Tensor,
    room: int | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the model with its position ids shifted; where none are given, those that transformers' causal
    models take then: in order, after what the cache holds.

    Raises OutOfPositionsError where that passes `room`, the positions the model has; no GPU is waited for to see that.
    """
    told = facts.given.get(NAME)
    if not isinstance(told, Tensor):
        tokens = facts.shape()[1]
        told = torch.arange(facts.cached, facts.cached + tokens, device=facts.device())[None]
    if room is not None and told.device.type == "cpu" and not torch.compiler.is_compiling():
        last = int((told + shift).max())
        if last >= room:
            slots = int(torch.as_tensor(shift).max())
            raise OutOfPositionsError(
                f"{last + 1 - slots} tokens behind {slots} slots need {last + 1} positions, and the model has {room}; "
                "shorten the text, or use fewer slots or position 'raw'"
            )
    at = names.index(NAME)
    if at < len(args):
        return (*args[:at], told + shift, *args[at + 1 :]), kwargs
    return args, {**kwargs, NAME: told + shift}

"""Memories that begin from what the frozen host computes for a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.states import TextStates
from ctxpeft.errors import HostError
from ctxpeft.hosts.build import Built
from ctxpeft.hosts.controller import Controller
from ctxpeft.hosts.device import execution_device
from ctxpeft.hosts.probe import text_pass
from ctxpeft.spec.blocks import InitSpec, Place
from ctxpeft.spec.variant import Variant

States = dict[int, TextStates]


def compiled_init(variant: Variant, place: int) -> InitSpec | None:
    """The init of the module at a place of the variant, if it compiles."""
    init = getattr(variant.modules[place].memory, "init", None)
    return init if isinstance(init, InitSpec) and init.compiles else None


def compile_inits(
    model: nn.Module, controller: Controller, variant: Variant, built: list[Built], tokenizer: Any
) -> None:
    """Fill every memory whose init compiles. Each text is read once, by the frozen model in eval mode.

    Raises HostError where the model's tokenizer cannot be had, or a text does not fit.
    """
    wanted = {b.place: init for b in built if (init := compiled_init(variant, b.place)) is not None}
    if not wanted:
        return
    tokenizer = model_tokenizer(model) if tokenizer is None else tokenizer
    known: dict[tuple[str, Place], States] = {}
    for _, place, layer, module in built:
        if place in wanted and isinstance(module, ContextModule):
            assert layer is not None
            placed = getattr(variant.modules[place].memory, "position", "raw") != "raw"
            asked = [(text, _standing(where, placed)) for text, where in wanted[place].texts()]
            for text, where in asked:
                if (text, where) not in known:
                    known[text, where] = read_text(model, controller, token_ids(tokenizer, text), where)
            try:
                wanted[place].compile(module, [known[question][layer] for question in asked])
            except HostError as error:
                raise HostError(f"{variant.name}: modules[{place}].memory.init: {error}") from None


def _standing(where: Place, placed: bool) -> Place:
    """Slots with a position hold the keys of a cache that begins at position 0: the text is read as the content is."""
    return "content" if placed else where


def read_text(model: nn.Module, controller: Controller, ids: list[int], where: Place) -> States:
    """The states of every served layer for one text, `before` position 0 where positions are relative."""
    device = execution_device(model, next(model.parameters()))
    tokens = torch.tensor([ids], device=device)
    positions = torch.arange(len(ids), device=device)[None]
    if where == "before" and has_rotary_positions(model):
        positions = positions - len(ids)
    with controller.record() as found:
        text_pass(model, None, input_ids=tokens, position_ids=positions, use_cache=False)
    return found


def has_rotary_positions(model: nn.Module) -> bool:
    """Whether the model turns queries and keys by position, so that only distances matter."""
    return any(name.rpartition(".")[2].startswith("rotary_emb") for name, _ in model.named_modules())


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, special ones as the tokenizer adds them. Raises HostError if there are none."""
    ids = [int(i) for i in tokenizer(text)["input_ids"]]
    if not ids:
        raise HostError(f"the text {text!r} has no tokens")
    return ids


def model_tokenizer(model: nn.Module) -> Any:
    """The tokenizer that came with the model. Raises HostError where there is none."""
    from transformers import AutoTokenizer

    where = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    try:
        return AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, TypeError, KeyError):
        raise HostError(
            f"this variant begins from a text and needs the model's tokenizer, which is not at '{where}'; give "
            "attach(..., tokenizer=...)"
        ) from None

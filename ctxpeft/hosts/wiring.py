"""How q, k and v come out of an attention module: read from the values of one recorded call, not from names.

At position 0 a rotary embedding is the identity. So the first token's query, as the attention interface receives it,
equals the output of the module that made it, in some arrangement of heads; the same holds for key and value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Layout = Literal["BTW", "BTHd", "BHTd"]
LAYOUTS: tuple[Layout, ...] = ("BTW", "BTHd", "BHTd")


@dataclass(frozen=True)
class Arrangement:
    """Where `heads` heads of `width` lie in the output of a module: `layout` says what its axes are (W is all heads
    side by side), then W is `groups` equal parts, and a part holds `heads / groups` heads from `offset` on.

    One group is q, k and v side by side; a group for each kv head is the interleaved layout of GPT-NeoX or Falcon.
    """

    layout: Layout
    heads: int
    width: int
    groups: int = 1
    offset: int = 0

    def take(self, x: Tensor) -> Tensor:
        """(B, T, heads, width) out of a module's output."""
        if self.layout == "BHTd":
            x = x.transpose(1, 2)
        if self.layout != "BTW":
            x = x.flatten(2)
        size = self.heads // self.groups * self.width
        parts = x.reshape(*x.shape[:2], self.groups, -1)[..., self.offset : self.offset + size]
        return parts.reshape(*x.shape[:2], self.heads, self.width)

    def give(self, x: Tensor) -> Tensor:
        """(B, T, heads, width) as a module of this layout takes it."""
        return {"BTW": x.flatten(2), "BTHd": x, "BHTd": x.transpose(1, 2)}[self.layout]


@dataclass(frozen=True)
class Step:
    """One module on the way: its name inside the attention, how it takes its input (None: the hidden state as it is)
    and how its output holds the heads."""

    module: str
    input: Arrangement | None
    output: Arrangement


@dataclass(frozen=True)
class Chain:
    """The modules from the hidden state to q, k or v, RoPE left out, and the factor behind them (YaRN has one)."""

    steps: tuple[Step, ...]
    factor: float = 1.0

    def run(self, attention: nn.Module, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, heads, width)."""
        out = x
        for step in self.steps:
            module = attention.get_submodule(step.module)
            out = step.output.take(module(out if step.input is None else step.input.give(out)))
        return out if self.factor == 1 else out * self.factor


@dataclass(frozen=True)
class Call:
    """A call of a submodule: its name, its first input and its output."""

    name: str
    input: Tensor
    output: Tensor


@dataclass
class Record:
    """What one attention module did in the recorded pass, up to its call of the interface. query (B, Hq, T, d).

    inputs: the states it was given, (B, T, D), its own first. arguments: its whole call, by name. projection: the first
    submodule behind the interface that takes all heads.
    """

    inputs: list[Tensor]
    arguments: dict[str, Any]
    calls: list[Call]
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    scaling: float | None = None
    softcap: float | None = None
    sees_later: bool = False
    projection: str | None = None


def query_step(record: Record) -> Step | None:
    """The module whose output is q before RoPE, called once a pass, or None where there is none.

    A norm behind RoPE has the same value at position 0; it is told apart by its input at position 1. Where a layer
    without RoPE scales its query by position, position 0 may say nothing and position 1 does.
    """
    assert record.query is not None
    count = {call.name: sum(c.name == call.name for c in record.calls) for call in record.calls}
    for call, at in ((call, at) for at in (0, 1) for call in reversed(record.calls)):
        found = _match(call.output, record.query.transpose(1, 2), record, at, permuted=True)
        if found is not None and count[call.name] == 1 and _comes_from_before(call, record):
            return Step(call.name, None, found)
    return None


def chain_to(target: Tensor, record: Record) -> Chain | None:
    """The modules that make a key or value (B, H, T, width) of the hidden state, at position 0; None if unknown."""
    steps: list[Step] = []
    wanted, factor = target.transpose(1, 2), 1.0
    for call in reversed(record.calls):
        found = _match(call.output, wanted, record, at=0)
        if found is None:
            continue
        if not steps:
            factor = _factor(found.take(call.output)[:, :1], wanted[:, :1])
        if _is_hidden(call.input, record):
            if call.input.shape[-1] != record.inputs[0].shape[-1]:
                return None
            return Chain((Step(call.name, None, found), *steps), factor)
        taken = Arrangement(found.layout, found.heads, found.width)
        if not _fits(taken, call.input, wanted.shape[1]):
            return None
        steps.insert(0, Step(call.name, taken, found))
        wanted = taken.take(call.input)
    return None


def _comes_from_before(call: Call, record: Record) -> bool:
    """Whether what a module takes was not rotated: it is a projection, or its input is an earlier module's output."""
    if _is_hidden(call.input, record) or call.input.shape[-1] != call.output.shape[-1]:
        return True
    assert record.query is not None
    tokens = record.query.shape[2]
    for earlier in record.calls[: record.calls.index(call)]:
        same = earlier.output.numel() == call.input.numel()
        if same and _close(earlier.output.flatten(), call.input.flatten()):
            return True
        if call.input.ndim == 4:
            for heads in dict.fromkeys((call.input.shape[2], call.input.shape[1])):
                for plain in _plain(heads, call.input.shape[3]):
                    if _fits(plain, call.input, tokens) and _match(
                        earlier.output, plain.take(call.input), record
                    ):
                        return True
    return False


def _is_hidden(x: Tensor, record: Record) -> bool:
    return any(x.shape == states.shape and _close(x, states) for states in record.inputs)


def _plain(heads: int, width: int) -> list[Arrangement]:
    return [Arrangement(layout, heads, width) for layout in LAYOUTS]


def _fits(arrangement: Arrangement, x: Tensor, tokens: int) -> bool:
    """Whether a tensor has the axes of an arrangement, all tokens and heads and nothing else."""
    heads, width = arrangement.heads, arrangement.width
    shape = {
        "BTW": (1, tokens, heads * width),
        "BTHd": (1, tokens, heads, width),
        "BHTd": (1, heads, tokens, width),
    }
    return tuple(x.shape) == shape[arrangement.layout]


def _match(
    output: Tensor, wanted: Tensor, record: Record, at: int | None = None, permuted: bool = False
) -> Arrangement | None:
    """How `output` holds `wanted` (1, T, heads, width); `at`: at this position alone, up to the order inside a head if
    `permuted` (an interleaved rotary embedding reorders it)."""
    heads, width = wanted.shape[2:]
    for arrangement in _candidates(output, wanted.shape[1], heads, width, record):
        taken, asked = arrangement.take(output), wanted
        if at is not None:
            taken, asked = taken[:, at : at + 1], asked[:, at : at + 1]
        if at is not None:
            taken = taken * _factor(taken, asked)
        if _close(taken, asked) or (permuted and _close(taken.sort(-1).values, asked.sort(-1).values)):
            return arrangement
    return None


def _candidates(output: Tensor, tokens: int, heads: int, width: int, record: Record) -> Iterator[Arrangement]:
    kv_heads = heads if record.key is None else record.key.shape[1]
    for layout in LAYOUTS:
        if output.ndim != (3 if layout == "BTW" else 4) or output.shape[0] != 1:
            continue
        if output.shape[2 if layout == "BHTd" else 1] != tokens:
            continue
        total = output.numel() // tokens
        for groups in dict.fromkeys(g for g in (1, kv_heads, heads) if heads % g == 0 and total % g == 0):
            size = heads // groups * width
            for offset in range(0, total // groups - size + 1, width):
                yield Arrangement(layout, heads, width, groups, offset)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors with values agree to rounding."""
    return _close(a, b)


def _factor(a: Tensor, b: Tensor) -> float:
    """The positive number that brings a to the length of b, 1 where they agree to rounding."""
    found = float(b.float().norm() / a.float().norm().clamp_min(1e-30)) if not a.is_meta else 1.0
    return 1.0 if abs(found - 1) < 1e-5 else found


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.is_meta or b.is_meta:
        return False
    tolerance = 1e-5 if torch.promote_types(a.dtype, b.dtype) in (torch.float32, torch.float64) else 1e-2
    scale = b.float().abs().max()
    return bool(scale > 0) and bool((a.float() - b.float()).abs().max() <= tolerance * scale)

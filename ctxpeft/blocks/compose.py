"""All modules at one site, composed: one joint softmax inside, then the outside modules in order.

Everything is read from the same capture before anything is merged. With content output o, log-mass L, and inside
modules i with numerator n_i, mass m_i, shift c_i and weight gate g_i,

    Z = e^L + sum_i e^{c_i} m_i,    o <- (1 - sum_i g_i e^{c_i} m_i / Z) o + sum_i g_i e^{c_i} n_i / Z,

which for g = 1 is softmax attention over the content and all slots together, never dividing by a small m_i. Where a
query sees nothing at all (Z = 0), o is left as it is.

What is not projected is read from the same capture and added later, to what the output projection makes of the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxpeft.blocks.attention import Part, Question, joint, serves
from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.precision import without_autocast

Active = tuple[ContextModule, Tensor | None]
Parts = tuple[ContextModule, Tensor | None, Read, Tensor | None]


@dataclass(frozen=True)
class Contribution:
    """What one module did to the output of its site, for instruments.

    change (B, H, T, dv): what it added to o, H all heads of the site; behind the output projection, to o cut into as
    many heads. weight (B, H, T): what it took of the softmax, inside only. gate: its gate as it was read, None where
    there is none.
    """

    module: ContextModule
    change: Tensor
    weight: Tensor | None
    gate: Tensor | None


Watch = Callable[[Capture, Contribution], None]


def joinable(active: Sequence[Active]) -> bool:
    """Whether `compose_jointly` can serve these modules: some compete, with their whole mass and for all tokens, and
    none looks at the content before the merge."""
    some = False
    for module, mask in active:
        if "output" in module.looks_at or "log_mass" in module.looks_at:
            return False
        if module.spec.placement == "inside":
            some = True
            if mask is not None or module.weighs:
                return False
    return some


def compose_jointly(capture: Capture, active: Sequence[Active], asked: Question) -> Tensor:
    """What `compose` merges, the content's attention computed together with what competes with it, and never apart.

    `capture.output` is not looked at but for its shape and type.
    """
    output, heads = capture.output, capture.output.shape[1]
    slots: list[tuple[Tensor, Tensor]] = []
    parts: list[Part] = []
    with without_autocast(output.device):
        outside = [entry for entry in active if entry[0].spec.placement == "outside"]
        for module, _ in active:
            if module.spec.placement == "inside":
                if module.joins:
                    key, value = module.pairs(capture)
                    if serves(asked.q, key[None], value[None], dtype=key.dtype) and (
                        not slots or slots[0][0].shape[0] == key.shape[0]
                    ):
                        slots.append((key, value))
                        continue
                read, _ = module.read(capture)
                n, m, c = _among_all(read, module, heads)
                shape = output.shape
                parts.append(
                    (n.expand(shape), None if m is None else m.expand(shape[:3]), c.expand(shape[:3]))
                )
        reads = [(module, mask, *module.read(capture)) for module, mask in outside]
        o = joint(asked, _side_by_side(slots), parts)
        if reads:
            o = o.to(reads[0][0].dtype)
            for module, mask, read, gate in reads:
                o = _merge_outside(o, module, mask, read, gate, None)
        return o.to(output.dtype)


def _side_by_side(slots: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
    """Slots of several modules as those of one."""
    if len(slots) < 2:
        return slots[0] if slots else None
    keys, values = zip(*slots, strict=True)
    return torch.cat(keys, 1), torch.cat(values, 1)


def compose(
    capture: Capture, active: Sequence[Active], watch: Watch | None = None
) -> tuple[Tensor, Tensor | None]:
    """The merged output, shaped and typed as `capture.output`, and the weight (B, Hq, T) left to the content.

    Each module comes with booleans (B, 1 or T) that say where it acts, or None for everywhere. The content weight is
    None where no module competes. `watch` is told what each module contributed.
    """
    output = capture.output
    reads = read_all(capture, active)
    with without_autocast(output.device):
        o = output.to(active[0][0].dtype)
        content_weight = None
        tell = (lambda part: watch(capture, part)) if watch is not None else None
        inside = [entry for entry in reads if entry[0].spec.placement == "inside"]
        if inside:
            assert capture.log_mass is not None
            o, content_weight = _compete(o, capture.log_mass().to(o.dtype), inside, tell)
        for module, mask, read, gate in reads:
            if module.spec.placement == "outside":
                o = _merge_outside(o, module, mask, read, gate, tell)
        return o.to(output.dtype), content_weight


def read_all(capture: Capture, active: Sequence[Active]) -> list[Parts]:
    """What the modules answer to one capture, before anything is merged."""
    with without_autocast(capture.output.device):
        return [(module, mask, *module.read(capture)) for module, mask in active]


def add_behind(states: Tensor, reads: Sequence[Parts], heads: int, watch: Watch | None = None) -> Tensor:
    """What the output projection made of `heads` heads, (B, T, D), and behind it the reads of modules that pass it by,
    head beside head; shaped and typed as `states`."""
    with without_autocast(states.device):
        cut = states.reshape(*states.shape[:2], heads, -1).transpose(1, 2)
        tell = (lambda part: watch(Capture(output=cut), part)) if watch is not None else None
        o = cut.to(reads[0][0].dtype)
        for module, mask, read, gate in reads:
            o = _merge_outside(o, module, mask, read, gate, tell)
        return o.transpose(1, 2).flatten(2).to(states.dtype)


def _compete(
    o: Tensor, log_mass: Tensor, inside: Sequence[Parts], tell: Callable[[Contribution], None] | None
) -> tuple[Tensor, Tensor]:
    """Joint softmax of the content (o (B, H, T, dv), L (B, H, T)) and all inside modules."""
    parts = []
    shift = log_mass.detach()
    for module, mask, read, gate in inside:
        n, m, c = _among_all(read, module, o.shape[1])
        if mask is not None:
            c = torch.where(mask[:, None], c, -torch.inf)
        if gate is not None:
            gate = _all_heads(gate, module.heads, o.shape[1])
        parts.append((module, n, m, c, gate))
        shift = torch.maximum(shift, c.detach())
    shift = torch.where(torch.isneginf(shift), torch.zeros_like(shift), shift)
    shares = [torch.exp(c - shift) for _, _, _, c, _ in parts]
    total = torch.exp(log_mass - shift)
    for (_, _, m, _, _), share in zip(parts, shares, strict=True):
        total = total + (share if m is None else share * m)
    total = total.masked_fill(total < torch.finfo(total.dtype).tiny, 1.0)
    weight, added = torch.ones_like(total), []
    for (module, n, m, _, gate), share in zip(parts, shares, strict=True):
        share = share / total
        if gate is not None:
            share = gate[..., 0] * share
        rho = share if m is None else share * m
        weight = weight - rho
        added.append((share, n))
        if tell is not None:
            change = share[..., None] * n - rho[..., None] * o
            tell(Contribution(module, change, rho, gate))
    merged = weight[..., None] * o
    for share, n in added:
        merged = torch.addcmul(merged, share[..., None], n)
    return merged, weight


def _among_all(read: Read, module: ContextModule, count: int) -> Part:
    """What competes at all heads: nothing, of mass 0, at those out of scope."""
    assert read.c is not None
    m = torch.ones_like(read.c) if read.m is None and module.heads is not None else read.m
    n, c = (_all_heads(t, module.heads, count) for t in (read.n, read.c))
    return n, None if m is None else _all_heads(m, module.heads, count), c


def _merge_outside(
    o: Tensor,
    module: ContextModule,
    mask: Tensor | None,
    read: Read,
    gate: Tensor | None,
    tell: Callable[[Contribution], None] | None,
) -> Tensor:
    """add: o + g r; mix: (1 - g) o + g r; scale: g o. Heads, rows and tokens out of scope are left as they are."""
    merge = module.spec.merge
    mine = o if module.heads is None else o.index_select(1, module.heads)
    if merge == "add":
        change = read.n if gate is None else gate * read.n
    elif merge == "mix":
        assert gate is not None
        change = gate * (read.n - mine)
    else:
        assert gate is not None
        change = (gate - 1) * mine
    if mask is not None:
        change = change * mask[:, None, :, None].to(change.dtype)
    if tell is not None:
        tell(Contribution(module, _all_heads(change.expand_as(mine), module.heads, o.shape[1]), None, gate))
    if module.heads is None:
        return o + change
    return o.index_add(1, module.heads, change.expand_as(mine).contiguous())


def _all_heads(t: Tensor, heads: Tensor | None, count: int) -> Tensor:
    """(B, H, ...) placed among all heads, zero elsewhere; one shared head stays one."""
    if heads is None or (t.shape[1] == 1 and heads.numel() > 1):
        return t
    return t.new_zeros(t.shape[0], count, *t.shape[2:]).index_add(1, heads, t.contiguous())

"""Attention by torch's kernels, whose log-sum-exp L makes merges exact, with exact gradients.

The kernels return L beside o but call it non-differentiable. Their backward only needs

    dS = P * (dP - D + dL),    P = exp(S - L),    D = rowsum(do * o).

`attention` gives o and L. It hands the kernel an o' with rowsum(do * o') = D - dL: o' = o - dL * do / |do|^2. In a
merge dL is at most rho |do| |o - r|, so the correction is never larger than |o - r|. A row with dL and without do
cannot be expressed this way: it is given a do so small that it changes nothing else (`STEP`). No value is looked at, so
a device need not wait and a compiler finds one graph.

`joint` is one softmax over the content and what competes with it. Every list of keys goes through its kernel alone, and
in the backward pass too, but with the *merged* o and L: P is then the share that a key has in the whole, and the
gradients are those of the whole. The content's own o and L are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ctxpeft.blocks.kernels import Kernel, kernel_for
from ctxpeft.blocks.one_list import laid, pays
from ctxpeft.blocks.precision import without_autocast

STEP = {torch.float16: 2.0**10, torch.bfloat16: 2.0**30, torch.float32: 2.0**30, torch.float64: 2.0**60}
"""dL over the size of the output gradient that a row without one is given: its inverse is below the precision of dL."""


class Call(NamedTuple):
    """One kernel, and the tensors as it takes them: q (B, H, T, d), k and v (B, G, S, d), an additive mask or None."""

    kernel: Kernel
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool
    scaling: float
    repeat: int = 1

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float) -> Call:
        """G divides H; k and v are repeated for the heads of a group where the kernel asks for it."""
        kernel = kernel_for(q.device, q.dtype, q.shape[-1], k.shape[2], mask is not None)
        assert kernel is not None, "asked without `serves`"
        repeat = 1 if kernel.grouped else q.shape[1] // k.shape[1]
        if repeat > 1:
            k, v = (t.repeat_interleave(repeat, 1) for t in (k, v))
        return cls(kernel, q, k, v, mask, causal, scaling, repeat)

    def forward(self) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        """o, L (B, H, T), and what the backward pass wants besides."""
        return self.kernel.forward(*self[1:7])

    def backward(
        self, do: Tensor, o: Tensor, mass: Tensor, rest: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v as they were given; o and L may be those of a larger whole."""
        if do.stride(-1) != 1 or self.kernel.contiguous:
            do = do.contiguous()
        tensors = (self.q, self.k, self.v, self.mask)
        dq, dk, dv = self.kernel.backward(do, tensors, o, mass, rest, self.causal, self.scaling)
        if self.repeat > 1:
            dk, dv = (t.reshape(len(t), -1, self.repeat, *t.shape[2:]).sum(2) for t in (dk, dv))
        return dq, dk, dv


def serves(q: Tensor, k: Tensor, v: Tensor, masked: bool = False, dtype: torch.dtype | None = None) -> bool:
    """Whether a kernel takes such tensors, in the type of q or another."""
    return (
        q.shape[-1] == v.shape[-1]
        and k.shape[2] > 0
        and not (torch.compiler.is_compiling() and q.device.type == "cuda")  # traced on the CPU alone so far
        and kernel_for(q.device, dtype or q.dtype, q.shape[-1], k.shape[2], masked) is not None
    )


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """o (B, H, T, d) and L (B, H, T) of q (B, H, T, d) on k and v (B, G, S, d), where `serves` says so. mask: additive,
    broadcast to (B, H, T, S). Rows that see nothing get whatever L the kernel says, and no gradient."""
    shape, groups = q.shape, k.shape[1]
    if _one_product(q, groups, mask):
        q, mask, causal = _as_rows(q, groups), _for_rows(mask, shape[1] // groups), False
    with without_autocast(q.device):
        if torch.is_grad_enabled():
            o, mass = AttentionWithMass.apply(q, k, v, mask, causal, scaling)  # type: ignore[no-untyped-call]
        else:
            o, mass, _ = Call.of(q, k, v, mask, causal, scaling).forward()
    return (o, mass) if o.shape == shape else (o.reshape(shape), mass.reshape(shape[:3]))


def _one_product(q: Tensor, groups: int, mask: Tensor | None) -> bool:
    """Whether the heads that share keys can be the rows of one product: there is one query, and they see the same."""
    return q.shape[2] == 1 and groups < q.shape[1] and (mask is None or mask.shape[1] == 1)


def _as_rows(t: Tensor, groups: int) -> Tensor:
    """(B, H, 1, ...) -> (B, G, H/G, ...)."""
    return t.reshape(t.shape[0], groups, t.shape[1] // groups, *t.shape[3:])


def _for_rows(mask: Tensor | None, rows: int) -> Tensor | None:
    return None if mask is None else mask.expand(-1, -1, rows, -1)


class AttentionWithMass(torch.autograd.Function):
    """`attention`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float
    ) -> tuple[Tensor, Tensor]:
        o, mass, rest = Call.of(q, k, v, mask, causal, scaling).forward()
        _keep(ctx, (q, k, v, mask, o, mass), rest)
        ctx.causal, ctx.scaling = causal, scaling
        return o, mass

    @staticmethod
    def backward(ctx: Any, do: Tensor, dmass: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, mask, o, mass), rest = _kept(ctx, 6)
        do, shifted = _shifted(do, dmass, o)
        grads = Call.of(q, k, v, mask, ctx.causal, ctx.scaling).backward(do, shifted, mass, rest)
        return (*grads, None, None, None)


def _shifted(do: Tensor, dmass: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
    """do and o' (B, H, T, d) with rowsum(do * o') = D - dL."""
    dmass = dmass[..., None]
    step = STEP[o.dtype]
    norm = do.square().sum(-1, keepdim=True, dtype=dmass.dtype)
    silent = norm <= (dmass / step).square()
    first = torch.zeros(o.shape[-1], dtype=dmass.dtype, device=o.device)
    first[0] = 1
    shift = torch.where(silent, step * first, dmass / norm * do)
    do = torch.where(silent, dmass / step * first, do).to(o.dtype)
    return do, o - shift.to(o.dtype)


class Question(NamedTuple):
    """What is asked of the content: q (B, H, T, d), k and v (B, Hkv, S, d), an additive mask or None; blind: booleans
    that broadcast to (B, H, T), queries that see nothing of it."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    blind: Tensor | None
    causal: bool
    scaling: float


Part = tuple[Tensor, Tensor | None, Tensor]
"""Numerator n (B, H, T, d), mass m (B, H, T), None for 1, and shift c (B, H, T) of what competes."""


def joint(asked: Question, slots: tuple[Tensor, Tensor] | None, parts: Sequence[Part]) -> Tensor:
    """o (B, H, T, d) of one softmax over the content, slots K and V (G, P, d) that all queries see, and other parts,
    where `serves` says so for both lists of keys. Slots and parts are in fp32 or wider, whatever q is; autocast is
    off."""
    q, groups, mask = asked.q, asked.k.shape[1], asked.mask
    if _one_product(q, groups, mask) and (slots is None or groups % slots[0].shape[0] == 0):
        rows = q.shape[1] // groups
        blind = None if asked.blind is None else asked.blind.expand(-1, -1, rows)
        asked = asked._replace(q=_as_rows(q, groups), mask=_for_rows(mask, rows), blind=blind, causal=False)
        few = [(_as_rows(n, groups), _mass_rows(m, groups), _mass_rows(c, groups)) for n, m, c in parts]
        return _joint(asked, slots, few).reshape(q.shape)  # type: ignore[arg-type]
    return _joint(asked, slots, parts)


def _mass_rows(t: Tensor | None, groups: int) -> Tensor | None:
    """(B, H, 1) -> (B, G, H/G)."""
    return None if t is None else t.reshape(t.shape[0], groups, -1)


def _joint(asked: Question, slots: tuple[Tensor, Tensor] | None, parts: Sequence[Part]) -> Tensor:
    slot_k, slot_v = slots or (None, None)
    flat = [t for part in parts for t in part]
    if torch.is_grad_enabled():
        found: Tensor = Joint.apply(*asked, slot_k, slot_v, *flat)  # type: ignore[no-untyped-call]
        return found
    one = slot_k is not None and pays(asked.q, asked.k, slot_k)
    return _joined(asked, slot_k, slot_v, flat, one, False)[0]


def _joined(
    asked: Question,
    slot_k: Tensor | None,
    slot_v: Tensor | None,
    flat: Sequence[Tensor | None],
    one: bool,
    kept: bool = True,
) -> tuple[Tensor, Tensor, tuple[Any, ...], tuple[Any, ...]]:
    """o, the logarithm of the whole mass if it is to be kept, and what the backward passes of the kernels want. With
    `one`, slots and content are one list, of which every query sees something."""
    q, k, v, mask, blind, causal, scaling = asked
    if one and slot_k is not None and slot_v is not None:
        k, v, mask = laid(k, v, mask, q.shape[2] if causal else 0, slot_k, slot_v)
        blind, causal, slot_k = None, False, None
    o, content, rest = Call.of(q, k, v, mask, causal, scaling).forward()
    parts = _parts(flat)
    slot_rest: tuple[Any, ...] = ()
    if slot_k is not None and slot_v is not None:
        r, mass, slot_rest = _of_slots(q, slot_k, slot_v, scaling).forward()
        parts.append((r, None, mass))
    if not parts:
        return o, content, rest, slot_rest
    if blind is not None:
        content = content.masked_fill(blind, -torch.inf)
    if len(parts) == 1 and parts[0][1] is None:
        r, _, mass = parts[0]
        rho = torch.sigmoid(mass - content)[..., None]
        if o.dtype == r.dtype == rho.dtype:
            merged = torch.lerp(o, r, rho)
        else:
            merged = torch.lerp(o.to(r.dtype), r, rho.to(r.dtype)).to(o.dtype)
        return merged, torch.logaddexp(content, mass) if kept else mass, rest, slot_rest
    shift = content
    for _, _, c in parts:
        shift = torch.maximum(shift, c)
    if blind is not None:
        shift = shift.masked_fill(torch.isneginf(shift), 0.0)
    share = torch.exp(content - shift)
    shares = [torch.exp(c - shift) for _, _, c in parts]
    total = share
    for (_, m, _), mine in zip(parts, shares, strict=True):
        total = total + mine if m is None else torch.addcmul(total, mine, m)
    if blind is not None:  # a query that sees nothing at all keeps the output it has
        nothing = total < torch.finfo(total.dtype).tiny
        total, share = total.masked_fill(nothing, 1.0), share.masked_fill(nothing, 1.0)
    merged = (share / total)[..., None] * o
    for (n, _, _), mine in zip(parts, shares, strict=True):
        merged = torch.addcmul(merged, (mine / total)[..., None], n)
    return merged.to(o.dtype), shift + torch.log(total) if kept else total, rest, slot_rest


def _parts(flat: Sequence[Tensor | None]) -> list[Part]:
    """n, m and c of every part, which an autograd function takes one by one."""
    return [cast(Part, tuple(flat[i : i + 3])) for i in range(0, len(flat), 3)]


def _of_slots(q: Tensor, slot_k: Tensor, slot_v: Tensor, scaling: float) -> Call:
    q = q if q.dtype == slot_k.dtype else q.to(slot_k.dtype)
    batch = q.shape[0]
    if batch == 1:
        return Call.of(q, slot_k[None], slot_v[None], None, False, scaling)
    k, v = slot_k.expand(batch, -1, -1, -1), slot_v.expand(batch, -1, -1, -1)
    return Call.of(q, k, v, None, False, scaling)


class Joint(torch.autograd.Function):
    """`joint`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        blind: Tensor | None,
        causal: bool,
        scaling: float,
        slot_k: Tensor | None,
        slot_v: Tensor | None,
        *flat: Tensor | None,
    ) -> Tensor:
        asked = Question(q, k, v, mask, blind, causal, scaling)
        one = slot_k is not None and pays(q, k, slot_k)
        o, whole, rest, slot_rest = _joined(asked, slot_k, slot_v, flat, one)
        # the slots alone pass gradients on in their own list, however o was made
        ctx.one = one and any(ctx.needs_input_grad[:3])
        _keep(ctx, (q, k, v, mask, o, whole, slot_k, slot_v, *flat), (*rest, *slot_rest))
        ctx.causal, ctx.scaling, ctx.border, ctx.count = causal, scaling, len(rest), len(flat)
        return o

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, mask, o, whole, slot_k, slot_v, *flat), rest = _kept(ctx, 8 + ctx.count)
        dq = dk = dv = dslot_k = dslot_v = None
        if ctx.one:
            count = slot_k.shape[1]
            k, v, mask = laid(k, v, mask, q.shape[2] if ctx.causal else 0, slot_k, slot_v)
            dq, dk, dv = Call.of(q, k, v, mask, False, ctx.scaling).backward(do, o, whole, rest)
            dslot_k, dslot_v = dk[:, :, :count].sum(0), dv[:, :, :count].sum(0)
            dk, dv = dk[:, :, count:], dv[:, :, count:]
        elif any(ctx.needs_input_grad[:3]):
            call = Call.of(q, k, v, mask, ctx.causal, ctx.scaling)
            dq, dk, dv = call.backward(do, o, whole, rest[: ctx.border])
        if slot_k is not None and not ctx.one:
            wide = slot_k.dtype
            call = _of_slots(q, slot_k, slot_v, ctx.scaling)
            dq_slots, dslot_k, dslot_v = call.backward(do.to(wide), o.to(wide), whole, rest[ctx.border :])
            dq = dq_slots.to(q.dtype) if dq is None else dq + dq_slots.to(q.dtype)
            dslot_k, dslot_v = dslot_k.sum(0), dslot_v.sum(0)
        parts = _of_parts(flat, ctx.needs_input_grad[9:], do, o, whole)
        return dq, dk, dv, None, None, None, None, dslot_k, dslot_v, *parts


def _of_parts(
    flat: Sequence[Tensor | None], wanted: Sequence[bool], do: Tensor, o: Tensor, whole: Tensor
) -> list[Tensor | None]:
    """The gradients of n, m and c of every part, those that are wanted."""
    found: list[Tensor | None] = []
    inner: Tensor | None = None
    for place, (n, m, c) in enumerate(_parts(flat)):
        to_n, to_m, to_c = wanted[3 * place : 3 * place + 3]
        wide, share = do.to(n.dtype), torch.exp(c - whole)
        dn = dm = dc = None
        if to_n:
            dn = share[..., None] * wide
        if to_m or to_c:
            inner = (wide * o).sum(-1) if inner is None else inner
            dmass = share * inner
            if to_m:
                dm = -dmass
            if to_c:
                dc = share * (wide * n).sum(-1) - (dmass if m is None else dmass * m)
        found += [dn, dm, dc]
    return found


def _keep(ctx: Any, tensors: tuple[Tensor | None, ...], rest: tuple[Any, ...]) -> None:
    """Keep tensors as tensors, and what else a kernel wants as it is."""
    ctx.save_for_backward(*tensors, *(value if isinstance(value, Tensor) else None for value in rest))
    ctx.rest = [None if isinstance(value, Tensor) else value for value in rest]


def _kept(ctx: Any, count: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    found = ctx.saved_tensors
    rest = tuple(
        value if tensor is None else tensor for tensor, value in zip(found[count:], ctx.rest, strict=True)
    )
    return found[:count], rest

"""Attention by torch's kernels, whose log-sum-exp L makes merges exact, with exact gradients.

The kernels return L beside o but call it non-differentiable. Their backward only needs

    dS = P * (dP - D + dL),    P = exp(S - L),    D = rowsum(do * o).

`attention` gives o and L. It hands the kernel an o' with rowsum(do * o') = D - dL: o' = o - dL * do / |do|^2. In a
merge dL is at most rho |do| |o - r|, so the correction is never larger than |o - r|. A row with dL and without do
cannot be expressed this way: it is given a do so small that it changes nothing else (`STEP`). No value is looked at, so
a device need not wait and a compiler finds one graph.

`joint` is one softmax over two lists of keys. Each list goes through its kernel alone, and in the backward pass too,
but with the *merged* o and L: P is then the share that the list has in the whole, and its gradients are the whole's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctxpeft.blocks.kernels import Kernel, kernel_for
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
    packed: bool
    repeat: int

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float) -> Call:
        """G divides H. The heads of a group are the rows of one product where there is one query; else k and v are
        repeated for them where the kernel asks for it."""
        kernel = kernel_for(q.device, q.dtype, q.shape[-1], k.shape[2], mask is not None)
        assert kernel is not None, "asked without `serves`"
        batch, heads, tokens, width = q.shape
        repeat = heads // k.shape[1]
        packed = tokens == 1 < repeat and (mask is None or mask.shape[1] == 1)
        if packed:
            q = q.reshape(batch, k.shape[1], repeat, width)
            mask = None if mask is None else mask.expand(-1, -1, repeat, -1)
            causal, repeat = False, 1
        elif kernel.grouped:
            repeat = 1
        if repeat > 1:
            k, v = (t.repeat_interleave(repeat, 1) for t in (k, v))
        return cls(kernel, q, k, v, mask, causal, scaling, packed, repeat)

    def forward(self, shape: torch.Size) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        """o and L (B, H, T) for a q of that shape, and what the backward pass wants besides."""
        o, mass, rest = self.kernel.forward(self.q, self.k, self.v, self.mask, self.causal, self.scaling)
        return (o.reshape(shape), mass.reshape(shape[:3]), rest) if self.packed else (o, mass, rest)

    def backward(
        self, do: Tensor, o: Tensor, mass: Tensor, rest: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v as they were given; L takes the place of the one that the kernel returned."""
        shape = do.shape
        if self.packed:
            do, o, mass = do.reshape(self.q.shape), o.reshape(self.q.shape), mass.reshape(self.q.shape[:3])
        if do.stride(-1) != 1 or self.kernel.contiguous:
            do = do.contiguous()
        tensors = (self.q, self.k, self.v, self.mask)
        dq, dk, dv = self.kernel.backward(do, tensors, o, (mass, *rest), self.causal, self.scaling)
        if self.repeat > 1:
            dk, dv = (t.reshape(len(t), -1, self.repeat, *t.shape[2:]).sum(2) for t in (dk, dv))
        return dq.reshape(shape) if self.packed else dq, dk, dv


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
    with without_autocast(q.device):
        found: tuple[Tensor, Tensor] = AttentionWithMass.apply(q, k, v, mask, causal, scaling)  # type: ignore[no-untyped-call]
        return found


class AttentionWithMass(torch.autograd.Function):
    """`attention`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float
    ) -> tuple[Tensor, Tensor]:
        o, mass, rest = Call.of(q, k, v, mask, causal, scaling).forward(q.shape)
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


def joint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: tuple[Tensor, Tensor],
    mask: Tensor | None,
    blind: Tensor | None,
    causal: bool,
    scaling: float,
) -> Tensor:
    """o (B, H, T, d) of one softmax over the content and the slots, where `serves` says so for both.

    q (B, H, T, d); content k and v (B, Hkv, S, d) under the additive mask; slots K and V (G, P, d), in fp32 or wider,
    seen by all. blind: booleans that broadcast to (B, H, T), queries that see no content.
    """
    with without_autocast(q.device):
        tensors = (q, k, v, *slots)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            found: Tensor = Joint.apply(*tensors, mask, blind, causal, scaling)  # type: ignore[no-untyped-call]
            return found
        return _joined(*tensors, mask, blind, causal, scaling)[0]


def _joined(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slot_k: Tensor,
    slot_v: Tensor,
    mask: Tensor | None,
    blind: Tensor | None,
    causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor, tuple[Any, ...], tuple[Any, ...]]:
    """o, the log-masses of the content and of the slots, and what the two backward passes want."""
    o, content, rest = Call.of(q, k, v, mask, causal, scaling).forward(q.shape)
    r, mass, slot_rest = _asked(q, slot_k, slot_v, scaling).forward(q.shape)
    if blind is not None:
        content = content.masked_fill(blind, -torch.inf)
    rho = torch.sigmoid(mass - content)[..., None]
    merged = torch.lerp(o.to(r.dtype), r, rho.to(r.dtype)).to(o.dtype)
    return merged, content, mass, rest, slot_rest


def _asked(q: Tensor, slot_k: Tensor, slot_v: Tensor, scaling: float) -> Call:
    batch = len(q)
    k, v = slot_k.expand(batch, -1, -1, -1), slot_v.expand(batch, -1, -1, -1)
    return Call.of(q.to(slot_k.dtype), k, v, None, False, scaling)


class Joint(torch.autograd.Function):
    """`joint`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        slot_k: Tensor,
        slot_v: Tensor,
        mask: Tensor | None,
        blind: Tensor | None,
        causal: bool,
        scaling: float,
    ) -> Tensor:
        o, content, mass, rest, slot_rest = _joined(q, k, v, slot_k, slot_v, mask, blind, causal, scaling)
        _keep(ctx, (q, k, v, slot_k, slot_v, mask, o, torch.logaddexp(content, mass)), (*rest, *slot_rest))
        ctx.causal, ctx.scaling, ctx.border = causal, scaling, len(rest)
        return o

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, slot_k, slot_v, mask, o, mass), rest = _kept(ctx, 8)
        asked = _asked(q, slot_k, slot_v, ctx.scaling)
        dtype = slot_k.dtype
        dq, dslot_k, dslot_v = asked.backward(do.to(dtype), o.to(dtype), mass, rest[ctx.border :])
        dk = dv = None
        if any(ctx.needs_input_grad[:3]):
            call = Call.of(q, k, v, mask, ctx.causal, ctx.scaling)
            dq_content, dk, dv = call.backward(do, o, mass, rest[: ctx.border])
            dq = dq_content + dq.to(q.dtype)
        return dq, dk, dv, dslot_k.sum(0), dslot_v.sum(0), None, None, None, None


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

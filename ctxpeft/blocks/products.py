"""Products of folded queries with one matrix a group, and such products of a feature map.

What the map makes is computed again in the backward pass instead of being kept, but for the CPU: there it takes as long
as the products, so it is kept where it is no wider than the query.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.grouping import Grouping


def grouped(x: Tensor, weight: Tensor) -> Tensor:
    """x W of each group: (..., G, N, w) and (G, w, v) -> (..., G, N, v); one matrix serves any G.

    Heads that lie beside the tokens in memory, as attention leaves them, are not copied.
    """
    groups, width, out = weight.shape
    if groups == 1:
        return x @ weight[0]
    if x.ndim == 3:
        return torch.bmm(x, weight)
    if x.ndim > 4:
        return grouped(x.flatten(0, -4), weight).reshape(*x.shape[:-1], out)
    batch, _, count, _ = x.shape
    if batch == 1:
        return torch.bmm(x[0], weight)[None]
    rows = x.transpose(0, 1).reshape(groups, batch * count, width)
    return torch.bmm(rows, weight).view(groups, batch, count, out).transpose(0, 1)


def repeated(weight: Tensor, share: int) -> Tensor:
    """(G, w, v) -> (G share, w, v): the matrix of each of `share` heads in a row. A matrix is small beside what is
    multiplied with it, and its gradient is the sum over the heads."""
    return weight if share == 1 else weight[:, None].expand(-1, share, -1, -1).flatten(0, 1)


def added(o: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """o + x W of each head in one product: (B, T, H, v), (B, H, T, w) and (H, w, v) -> (B, T, H, v). W may also be that
    of each row, (B H, w, v), where T is 1."""
    batch, tokens, heads, out = o.shape
    count, sets = batch * tokens, len(weight)
    if tokens == 1 and sets == batch * heads:
        return torch.baddbmm(o.reshape(sets, 1, out), x.reshape(sets, 1, -1), weight).view(o.shape)
    before = o.reshape(count, heads, out).transpose(0, 1)
    rows = x.transpose(0, 1).reshape(heads, count, -1)
    return torch.baddbmm(before, rows, weight).transpose(0, 1).reshape(o.shape)


def add_into(o: Tensor, x: Tensor, factors: Sequence[Tensor], share: int) -> Tensor:
    """o += x A ... W, of each head; o is contiguous, and no gradient passes. Shapes are those of `added`; `share` heads
    in a row have one matrix, so that W is (H / share, w, v). W may also be that of each row, where T is 1."""
    batch, tokens, heads, out = o.shape
    count, sets = batch * tokens, factors[0].shape[0]
    if tokens == 1 and sets * share == batch * heads:
        x = x.reshape(sets, share, -1)
        for factor in factors[:-1]:
            x = torch.bmm(x, factor)
        add_one(o, x, factors[-1], share)
    elif share == 1:  # a compiler takes no `out` with strides
        x = x.transpose(0, 1).reshape(heads, count, -1)
        for factor in factors:
            x = torch.bmm(x, factor)
        o.view(count, heads, out).transpose(0, 1).add_(x)
    else:
        o.add_(product(x, factors, share, o))
    return o


def add_one(o: Tensor, x: Tensor, weight: Tensor, share: int) -> Tensor:
    """o += x W of one query a row, as `add_into`; there are as many W (G, w, v) as `share` heads in a row need."""
    sets, width, out = weight.shape
    there = o.view(sets, share, out)
    torch.baddbmm(
        there, x.reshape(sets, share, width), weight, out=there
    )  # torch does not count baddbmm_'s FLOPs
    return o


def product(x: Tensor, factors: Sequence[Tensor], share: int, o: Tensor) -> Tensor:
    """x A ... W of each head, (B, T, H, v) as o; x, W and `share` are those of `add_into`."""
    batch, tokens, heads, out = o.shape
    sets = factors[0].shape[0]
    if tokens == 1 and sets * share == batch * heads:
        x = x.reshape(sets, share, -1)
        for factor in factors:
            x = torch.bmm(x, factor)
        return x.view(o.shape)
    x = x.reshape(batch, sets, share * tokens, -1)
    for factor in factors:
        x = grouped(x, factor)
    return x.reshape(batch, heads, tokens, out).transpose(1, 2)


def added_mapped(o: Tensor, q: Tensor, weight: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """o + phi(q) W of each head, as `added` takes them, of a map without parameters."""
    if torch.is_grad_enabled() and not _kept(q, weight):
        found: Tensor = _AddedMapped.apply(o, q, weight, phi)  # type: ignore[no-untyped-call]
        return found
    return added(o, phi(q), weight)


def _kept(q: Tensor, weight: Tensor) -> bool:
    """Whether phi(q) of q (..., d) and W (G, w, v) is kept for a backward pass."""
    return q.device.type == "cpu" and weight.shape[1] <= q.shape[-1]


class _AddedMapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, o: Tensor, q: Tensor, weight: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(q, weight)
        ctx.phi = phi
        return added(o, phi(q), weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, weight = ctx.saved_tensors
        to_o, to_q, to_weight, _ = ctx.needs_input_grad
        heads, width, _ = weight.shape
        rows = dy.flatten(0, 1).transpose(0, 1)
        x, again = _once_more(q, ctx.phi, to_q)
        dq = dweight = None
        if to_q and x.requires_grad:  # a constant map passes no gradient on
            dx = torch.bmm(rows, weight.transpose(1, 2)).view(heads, len(q), -1, width).transpose(0, 1)
            (dq,) = torch.autograd.grad(x, again, dx)
        if to_weight:
            folded = x.detach().transpose(0, 1).reshape(heads, -1, width)
            dweight = torch.bmm(folded.transpose(1, 2), rows)
        return dy if to_o else None, dq, dweight, None


def _once_more(x: Tensor, phi: Callable[[Tensor], Tensor], wanted: bool) -> tuple[Tensor, Tensor]:
    """phi(x) in a backward pass, and the x to differentiate it by."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(wanted)
        again = leaf.view_as(leaf)  # who watches modules in a backward pass cannot watch a leaf
        return phi(again), again


def mapped(
    x: Tensor, weights: Sequence[Tensor], phi: Callable[[Tensor], Tensor], grouping: Grouping
) -> tuple[Tensor, ...]:
    """phi(x) W for every W, folded: (B, H, T, d) and (G, w, v) -> (B, G, N, v). The map has no parameters."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling() and not _kept(x, weights[0]):
        found: tuple[Tensor, ...] = _Mapped.apply(x, phi, grouping, *weights)  # type: ignore[no-untyped-call]
        return found
    return _products(x, weights, phi, grouping)


def _products(
    x: Tensor, weights: Sequence[Tensor], phi: Callable[[Tensor], Tensor], grouping: Grouping
) -> tuple[Tensor, ...]:
    feature = grouping.fold(phi(x))
    return tuple(grouped(feature, weight) for weight in weights)


class _Mapped(torch.autograd.Function):
    """Keeps x and the weights; a compiler decides by itself what it keeps."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, phi: Callable[[Tensor], Tensor], grouping: Grouping, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        ctx.phi, ctx.grouping = phi, grouping
        return _products(x, weights, phi, grouping)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        feature, again = _once_more(x, lambda t: ctx.grouping.fold(ctx.phi(t)), ctx.needs_input_grad[0])
        dx = None
        if ctx.needs_input_grad[0] and feature.requires_grad:  # a constant map passes no gradient on
            back = (grouped(dy, w.transpose(1, 2)) for dy, w in zip(dys, weights, strict=True))
            (dx,) = torch.autograd.grad(feature, again, functools.reduce(torch.add, back))
        outer = (
            _outer(feature.detach(), dy) if wanted else None
            for dy, wanted in zip(dys, ctx.needs_input_grad[3:], strict=True)
        )
        return dx, None, None, *outer


def _outer(x: Tensor, y: Tensor) -> Tensor:
    """Sum of outer products over rows and tokens: (B, G, N, w) and (B, G, N, v) -> (G, w, v)."""
    groups = x.shape[1]
    x, y = (t.transpose(0, 1).reshape(groups, -1, t.shape[-1]) for t in (x, y))
    return torch.bmm(x.transpose(1, 2), y)

"""One softmax over the content and what competes with it, of one query a row, as a decoded token asks.

The heads that share keys are the rows of one product. Nothing is kept for a backward pass, and autocast is off. It says
what `ctxpeft.blocks.attention.joint` says, in fewer operations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ctxpeft.blocks.kernels import Kernel, kernel_for
from ctxpeft.blocks.products import grouped

COPIED = 1 << 15
"""Numbers of K that are copied at most, to ask one kernel instead of two: at twice as many it costs the same."""


class OneQuery(NamedTuple):
    """What is asked of the content: q (B, Hq, 1, d), k and v (B, Hkv, S, d), an additive mask or None; blind: booleans
    that broadcast to (B, Hkv, Hq / Hkv), queries that see nothing of it. What competes is in `wide`."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    blind: Tensor | None
    scaling: float
    wide: torch.dtype
    kernel: Kernel
    beside: Kernel

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        blind: Tensor | None,
        scaling: float,
        wide: torch.dtype,
    ) -> OneQuery | None:
        """None where no kernel serves."""
        dtype, width = q.dtype, q.shape[3]
        if (
            k.shape[2] == 0
            or not dtype == k.dtype == v.dtype
            or width != v.shape[3]
            or (mask is not None and mask.shape[1] > 1)
            or (q.is_cuda and torch.compiler.is_compiling())
        ):
            return None
        kernel = kernel_for(q.device, dtype, width, k.shape[2], mask is not None)
        beside = kernel if mask is None and dtype == wide else kernel_for(q.device, wide, width, 1, False)
        if kernel is None or beside is None:
            return None
        return cls(q, k, v, mask, blind, scaling, wide, kernel, beside)

    def beside_slots(
        self, slots: tuple[Tensor, Tensor], of_rows: bool, more: Tensor | float | None
    ) -> Tensor | None:
        """(B, 1, Hq, d) beside K and V (G, P, d), the slots of the heads that share keys, those of each row's with
        `of_rows`; None where they are others'. `more`, broadcast to (B, Hkv, Hq / Hkv), is added to their log-mass."""
        key, value = slots
        batch, groups = self.k.shape[:2]
        if key.shape[0] != (batch * groups if of_rows else groups) or key.shape[2] != self.q.shape[3]:
            return None
        if of_rows:
            key, value = (t.view(batch, groups, *t.shape[1:]) for t in (key, value))
        elif batch == 1:
            key, value = key[None], value[None]
        else:
            key, value = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
        if more is None and self._copies(key):
            key, value = torch.cat((key, self.k), 2), torch.cat((value, self.v), 2)
            return self._whole(self.kernel.forward(self._rows(), key, value, None, False, self.scaling)[0])
        q, o, of_content = self._content()
        r, of_slots, _ = self.beside.forward(q, key, value, None, False, self.scaling)
        if more is not None:
            of_slots = of_slots + more
        return self._whole(torch.lerp(o, r, torch.sigmoid(of_slots - of_content)[..., None]))

    def beside_mass(self, x: Tensor, matrix: Tensor, z: Tensor, share: int) -> Tensor:
        """(B, 1, Hq, d) beside x^T M of mass x^T z: x (B, Hq, 1, w) >= 0, M (G, w, d) and z (G, w, 1) of `share` heads
        in a row each, of each row's heads if there are so many. Where nothing has mass, o is left as it is."""
        _, o, of_content = self._content()
        x = x.reshape(-1, matrix.shape[0], share, x.shape[3])
        n, m = grouped(x, matrix).reshape(o.shape), grouped(x, z).reshape(*o.shape[:3], 1)
        whole = torch.exp(of_content)[..., None] + m
        whole = whole.clamp_min(torch.finfo(whole.dtype).tiny)  # n - m o is 0 there
        return self._whole(torch.addcdiv(o, torch.addcmul(n, m, o, value=-1), whole))

    def _copies(self, key: Tensor) -> bool:
        """Whether slots and content become one list: of few numbers a copy costs less than a second kernel."""
        k = self.k
        return (
            not torch.compiler.is_compiling()  # asked first, for no size to become a condition of a graph
            and k.is_cpu
            and self.mask is None
            and self.blind is None
            and k.dtype == self.wide
            and k.shape[0] * k.shape[1] * (k.shape[2] + key.shape[2]) * k.shape[3] <= COPIED
        )

    def groups(self) -> tuple[int, int]:
        """Hkv and Hq / Hkv."""
        heads, groups = self.q.shape[1], self.k.shape[1]
        return groups, heads // groups

    def _content(self) -> tuple[Tensor, Tensor, Tensor]:
        """q and o (B, Hkv, Hq / Hkv, d), in `wide`, and L (B, Hkv, Hq / Hkv)."""
        q, wide = self._rows(), self.wide
        mask = None if self.mask is None else self.mask.expand(-1, -1, q.shape[2], -1)
        o, mass, _ = self.kernel.forward(q, self.k, self.v, mask, False, self.scaling)
        if self.blind is not None:
            mass = mass.masked_fill(self.blind, -torch.inf)
        return (q, o, mass) if q.dtype == wide else (q.to(wide), o.to(wide), mass)

    def _rows(self) -> Tensor:
        """q (B, Hkv, Hq / Hkv, d)."""
        q, groups = self.q, self.k.shape[1]
        batch, heads, _, width = q.shape
        return q.reshape(batch, groups, heads // groups, width)

    def _whole(self, o: Tensor) -> Tensor:
        batch, heads, _, width = self.q.shape
        o = o.reshape(batch, 1, heads, width)
        return o if o.dtype == self.q.dtype else o.to(self.q.dtype)


def log_count(keys: int, visible: Tensor | None, dtype: torch.dtype) -> Tensor | float:
    """The logarithm of how many of its keys a query sees, of at least one; visible (..., S), None for all."""
    if visible is not None:
        return visible.sum(-1).clamp_min(1).to(dtype).log()
    if torch.compiler.is_compiling():  # a number would make a graph of every length
        return torch.full((), keys, dtype=dtype).log()
    return math.log(keys)

"""Attention and its log-sum-exp from one kernel, with exact gradients through both.

torch's kernels return L beside o but call it non-differentiable. Their backward only needs

    dS = P * (dP - D + dL),    D = rowsum(do * o),

so handing it an o' with rowsum(do * o') = D - dL gives the gradient of both outputs in one call:
o' = o - dL * do / |do|^2. In a merge dL is at most rho |do| |o - r|, so the correction is never larger than |o - r|.
A row with dL and without do cannot be expressed this way: it is given a do so small that it changes nothing else
(`STEP`). No value is looked at, so a device need not wait and a compiler finds one graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.precision import autocasts, without_autocast
from ctxpeft.hosts.kernels import Kernel, kernel_for

STEP = {torch.float16: 2.0**10, torch.bfloat16: 2.0**30, torch.float32: 2.0**30, torch.float64: 2.0**60}
"""dL over the size of the output gradient that a row without one is given: its inverse is below the precision of dL."""


class AttentionWithMass(torch.autograd.Function):
    """q (B, H, T, d), k and v (B, H, S, d), additive mask or None -> o (B, H, T, d) and L (B, H, T)."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float
    ) -> tuple[Tensor, Tensor]:
        kernel = _kernel(q, k, mask)
        assert kernel is not None, "asked without `applicable`"
        o, mass, rest = kernel.forward(q, k, v, mask, causal, scaling)
        kept = [value if isinstance(value, Tensor) else None for value in rest]
        ctx.save_for_backward(q, k, v, mask, o, *kept)
        ctx.rest = [None if isinstance(value, Tensor) else value for value in rest]
        ctx.kernel, ctx.causal, ctx.scaling = kernel, causal, scaling
        return o, mass

    @staticmethod
    def backward(ctx: Any, do: Tensor, dmass: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, o, *kept = ctx.saved_tensors
        rest = tuple(
            value if tensor is None else tensor for tensor, value in zip(kept, ctx.rest, strict=True)
        )
        do, shifted = _shifted(do, dmass, o)
        grads = ctx.kernel.backward(do, (q, k, v, mask), shifted, rest, ctx.causal, ctx.scaling)
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


def applicable(query: Tensor, key: Tensor, value: Tensor, mask: Any, options: dict[str, Any]) -> bool:
    """Whether a kernel can serve this call: equal widths, no dropout, cap, sink or bias, a mask it knows."""
    plain = all(options.get(name) is None for name in ("softcap", "s_aux", "position_bias", "cache"))
    dense = mask is None or (isinstance(mask, Tensor) and mask.ndim == 4)
    return (
        plain
        and dense
        and not (
            torch.compiler.is_compiling() and query.device.type == "cuda"
        )  # traced on the CPU alone so far
        and not options.get("dropout")
        and _kernel(query, key, mask) is not None
        and query.shape[-1] == value.shape[-1]
        and key.shape[2] > 0
    )


def _kernel(query: Tensor, key: Tensor, mask: Tensor | None) -> Kernel | None:
    return kernel_for(query.device, _dtype(query), query.shape[-1], key.shape[2], mask is not None)


def _dtype(query: Tensor) -> torch.dtype:
    """What the kernel computes in: under autocast the type that autocast gives to attention, else that of q."""
    if query.dtype == torch.float32 and autocasts(query.device):
        return torch.get_autocast_dtype(query.device.type)
    return query.dtype


def attention_with_mass(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, mask: Any, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """Content attention o (B, Hq, T, dv) and L (B, Hq, T).

    query (B, Hq, T, d); key and value (B, Hkv, S, d). `causal` is for the case without a mask. Rows that see nothing
    get L = -inf, where the kernel says 0.
    """
    query, key, value = (t.to(_dtype(query)) for t in (query, key, value))
    batch, heads, tokens, _ = query.shape
    if causal and key.shape[2] > tokens:
        key, value = key[:, :, :tokens], value[:, :, :tokens]
    additive = _additive(mask, query, key.shape[2]) if isinstance(mask, Tensor) else None
    groups = key.shape[1]
    packed = tokens == 1 and groups < heads and (additive is None or additive.shape[1] == 1)
    if packed:
        query = query.reshape(batch, groups, heads // groups, -1)
        additive = None if additive is None else additive.expand(-1, -1, heads // groups, -1)
    elif groups < heads and not _kernel(query, key, additive).grouped:  # type: ignore[union-attr]
        key, value = (t.repeat_interleave(heads // groups, 1) for t in (key, value))
    with without_autocast(query.device):
        output, mass = AttentionWithMass.apply(query, key, value, additive, causal, scaling)  # type: ignore[no-untyped-call]
    if packed:
        output, mass = output.reshape(batch, heads, 1, -1), mass.reshape(batch, heads, 1)
    if visible is not None and not causal:
        mass = mass.masked_fill(~visible.any(-1), -torch.inf)
    return output, mass


def _additive(mask: Tensor, query: Tensor, length: int) -> Tensor:
    """A mask of booleans or numbers as numbers of the query's type, for the first `length` keys."""
    if mask.dtype == torch.bool:
        lowest = -torch.inf if query.device.type == "cpu" else torch.finfo(query.dtype).min
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, lowest)
    return mask[..., :length].to(query.dtype)

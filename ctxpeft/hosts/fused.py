"""Attention and its log-sum-exp from one kernel, with exact gradients through both.

torch's kernels return L beside o but call it non-differentiable. Their backward only needs

    dS = P * (dP - D + dL),    D = rowsum(do * o),

so handing it an o' with rowsum(do * o') = D - dL gives the gradient of both outputs in one call:
o' = o - dL * do / |do|^2. In a merge dL is at most rho |do| |o - r|, so the correction is never larger than |o - r|.
A row with do = 0 and dL != 0 cannot be expressed this way; `backward` then recomputes the scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.hosts.kernels import Kernel, kernel_for


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
        dmass = dmass[..., None]
        norm = do.square().sum(-1, keepdim=True, dtype=dmass.dtype)
        if bool(((norm == 0) & (dmass != 0)).any()):
            return (*_recomputed(ctx, q, k, v, mask, do, dmass), None, None, None)
        shifted = o - (dmass / norm.clamp_min(torch.finfo(norm.dtype).tiny) * do).to(o.dtype)
        grads = ctx.kernel.backward(do.contiguous(), (q, k, v, mask), shifted, rest, ctx.causal, ctx.scaling)
        return (*grads, None, None, None)


def _recomputed(
    ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, do: Tensor, dmass: Tensor
) -> tuple[Tensor, ...]:
    """The same gradients by way of the score matrix; a row that sees nothing passes none."""
    with torch.enable_grad():
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        score = q @ k.transpose(2, 3) * ctx.scaling
        if mask is not None:
            score = score + mask
        if ctx.causal:
            hidden = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)
            score = score.masked_fill(hidden, -torch.inf)
        blind = torch.isneginf(score).all(-1, keepdim=True)
        score = score.masked_fill(blind, 0.0)
        outputs = (torch.softmax(score, -1) @ v, torch.logsumexp(score, -1))
        do, dmass = do.masked_fill(blind, 0.0), dmass.masked_fill(blind, 0.0)[..., 0].to(do.dtype)
        return torch.autograd.grad(outputs, (q, k, v), (do, dmass))


def applicable(query: Tensor, key: Tensor, value: Tensor, mask: Any, options: dict[str, Any]) -> bool:
    """Whether a kernel can serve this call: equal widths, no dropout, cap, sink or bias, a mask it knows."""
    plain = all(options.get(name) is None for name in ("softcap", "s_aux", "position_bias", "cache"))
    dense = mask is None or (isinstance(mask, Tensor) and mask.ndim == 4)
    return (
        plain
        and dense
        and not torch.compiler.is_compiling()
        and not options.get("dropout")
        and _kernel(query, key, mask) is not None
        and query.shape[-1] == value.shape[-1]
        and key.shape[2] > 0
    )


def _kernel(query: Tensor, key: Tensor, mask: Tensor | None) -> Kernel | None:
    return kernel_for(query.device, _dtype(query), query.shape[-1], key.shape[2], mask is not None)


def _dtype(query: Tensor) -> torch.dtype:
    """What the kernel computes in: under autocast the type that autocast gives to attention, else that of q."""
    device = query.device.type
    if torch.is_autocast_enabled(device) and query.dtype == torch.float32:
        return torch.get_autocast_dtype(device)
    return query.dtype


def attention_with_mass(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, mask: Any, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """Content attention o (B, Hq, T, dv) and L (B, Hq, T).

    query (B, Hq, T, d); key and value (B, Hkv, S, d), repeated here as the host's own backend does. `causal` is for
    the case without a mask. Rows that see nothing get L = -inf, where the kernel says 0.
    """
    query, key, value = (t.to(_dtype(query)) for t in (query, key, value))
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = (t.repeat_interleave(repeat, 1) for t in (key, value))
    if causal and key.shape[2] > query.shape[2]:
        key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
    additive = None
    if isinstance(mask, Tensor):
        additive = mask
        if mask.dtype == torch.bool:
            lowest = -torch.inf if query.device.type == "cpu" else torch.finfo(query.dtype).min
            additive = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, lowest)
        additive = additive[..., : key.shape[2]].to(query.dtype)
    with torch.autocast(query.device.type, enabled=False):
        output, mass = AttentionWithMass.apply(query, key, value, additive, causal, scaling)  # type: ignore[no-untyped-call]
    if visible is not None and not causal:
        mass = mass.masked_fill(~visible.any(-1), -torch.inf)
    return output, mass

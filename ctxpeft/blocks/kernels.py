"""The kernels of torch that tell the log-sum-exp beside the output, under one call.

All take q (B, H, T, d), k and v (B, G, S, d), and an additive mask broadcast to (B, H, T, S) or None. They read rows of
numbers that lie side by side, which torch's own call of attention sees to; here what lies otherwise is copied.
Each backward reads rowsum(do * o) from the `o` it is handed, which `ctxpeft.blocks.attention` relies on.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten
HALVES = (torch.float16, torch.bfloat16)
TYPES = (torch.float32, torch.float64, torch.bfloat16)
"""Those of the kernel on the CPU."""


class Kernel(Protocol):
    """One kernel. grouped: whether G may be a divisor of H, else G = H. contiguous: whether the gradient of o must be.

    `forward` returns o, L (B, H, T) in fp32 or wider, and what `backward` wants besides.
    """

    grouped: bool
    contiguous: bool

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scaling: float
    ) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        """The attention and its log-mass."""

    def backward(
        self,
        do: Tensor,
        tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
        o: Tensor,
        mass: Tensor,
        rest: tuple[Any, ...],
        causal: bool,
        scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k, v; `tensors` are q, k, v and the mask. o and L may be those of a larger whole."""


class Cpu:
    """torch's flash kernel on the CPU, with or without a mask."""

    grouped = True
    contiguous = False

    def forward(self, q, k, v, mask, causal, scaling):  # type: ignore[no-untyped-def]
        q, k, v = rows(q, k, v)
        o, mass = torch._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=mask, scale=scaling
        )
        return o, mass, ()

    def backward(self, do, tensors, o, mass, rest, causal, scaling):  # type: ignore[no-untyped-def]
        q, k, v = rows(*tensors[:3])
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            do, q, k, v, o, mass, 0.0, causal, attn_mask=tensors[3], scale=scaling
        )


class Flash:
    """torch's flash kernel on CUDA: halves, no mask."""

    grouped = False
    contiguous = True

    def forward(self, q, k, v, mask, causal, scaling):  # type: ignore[no-untyped-def]
        q, k, v = rows(q, k, v)
        o, mass, *rest, _ = aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, causal, False, scale=scaling
        )
        return o, mass, tuple(rest)

    def backward(self, do, tensors, o, mass, rest, causal, scaling):  # type: ignore[no-untyped-def]
        q, k, v = rows(*tensors[:3])
        cum_q, cum_k, max_q, max_k, seed, offset = rest
        return aten._scaled_dot_product_flash_attention_backward(
            do, q, k, v, o, mass, cum_q, cum_k, max_q, max_k, 0.0, causal, seed, offset, scale=scaling
        )


class Efficient:
    """torch's memory-efficient kernel on CUDA: every float type it knows, with or without a mask."""

    grouped = False
    contiguous = True

    def forward(self, q, k, v, mask, causal, scaling):  # type: ignore[no-untyped-def]
        bias = None if mask is None else mask.expand(*q.shape[:3], k.shape[2])
        q, k, v = rows(q, k, v)
        o, mass, seed, offset = aten._scaled_dot_product_efficient_attention(
            q, k, v, bias, True, 0.0, causal, scale=scaling
        )
        return o, mass[..., : q.shape[2]], (seed, offset)  # the kernel rounds T up to a block

    def backward(self, do, tensors, o, mass, rest, causal, scaling):  # type: ignore[no-untyped-def]
        (q, k, v), mask = rows(*tensors[:3]), tensors[3]
        bias = None if mask is None else mask.expand(*q.shape[:3], k.shape[2])
        wanted = [True, True, True, False]
        mass = functional.pad(mass, (0, -mass.shape[2] % 32), value=torch.inf)
        return aten._scaled_dot_product_efficient_attention_backward(
            do, q, k, v, bias, o, mass, *rest, 0.0, wanted, causal, scale=scaling
        )[:3]


def rows(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, the last axis of each side by side in memory."""
    if q.stride(3) == k.stride(3) == v.stride(3) == 1:
        return q, k, v
    return q.contiguous(), k.contiguous(), v.contiguous()


CPU, FLASH, EFFICIENT = Cpu(), Flash(), Efficient()


def kernel_for(
    device: torch.device, dtype: torch.dtype, width: int, keys: int, masked: bool
) -> Kernel | None:
    """The kernel that serves such a call, None where none does. Sketches on the meta device take that of the CPU.

    On CUDA rows and masks must be aligned: widths and, under a mask, the number of keys are multiples of 8.
    """
    if device.type in ("cpu", "meta"):
        return CPU if dtype in TYPES else None
    if device.type != "cuda" or width % 8 or dtype not in (torch.float32, *HALVES):
        return None
    if masked:
        return EFFICIENT if keys % 8 == 0 else None
    return FLASH if dtype in HALVES and width <= 256 else EFFICIENT

"""Matmul FLOPs of kernels that torch's FlopCounterMode has no formula for.

The backward pass of attention is four products of scores and values. A kernel that computes the scores again does a
fifth, in the frozen model as in ours; it is not counted, so that all kernels count alike.
"""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from ctxpeft.blocks.kernels import aten

Shape = tuple[int, ...]


def attention_flops(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """q (B, H, T, d), k (B, G, S, d), v (B, G, S, dv): scores and values."""
    batch, heads, tokens, width = q
    return 2 * batch * heads * tokens * k[2] * (width + v[3])


def attention_backward_flops(do: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """Two products of each of the forward's two."""
    return 2 * attention_flops(q, k, v)


FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
    aten._scaled_dot_product_flash_attention_backward: attention_backward_flops,
    aten._scaled_dot_product_efficient_attention_backward: attention_backward_flops,
}


def flop_counter() -> FlopCounterMode:
    """torch's counter, silent, with these formulas."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)

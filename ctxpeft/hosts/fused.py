"""The content's attention by a kernel that tells its log-mass, for the calls that hosts make of the interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.attention import Question, attention, serves
from ctxpeft.blocks.kernels import TYPES
from ctxpeft.blocks.precision import autocasts
from ctxpeft.hosts.content import Content, seen


def applicable(query: Tensor, key: Tensor, value: Tensor, mask: Any, options: dict[str, Any]) -> bool:
    """Whether a kernel can serve this call: equal widths, and `plain`."""
    return plain(mask, options) and serves(query, key, value, mask is not None, _dtype(query))


def plain(mask: Any, options: dict[str, Any]) -> bool:
    """Whether a call of the interface has no dropout, cap, sink or bias, and a mask that kernels know."""
    told = options.get
    return (
        told("softcap") is None
        and told("s_aux") is None
        and told("position_bias") is None
        and told("cache") is None
        and (mask is None or (isinstance(mask, Tensor) and mask.ndim == 4))
        and not told("dropout")
    )


def one_query(query: Tensor, key: Tensor, value: Tensor, mask: Any, options: dict[str, Any]) -> Tensor | None:
    """(B, 1, Hq, d) of a call of the interface for one query a row that sees every key: by the kernel that sdpa would
    choose on a CPU, bit for bit, without the way there. None where the way is needed; no gradient passes."""
    batch, heads, tokens, width = query.shape
    if tokens != 1 or mask is not None or not query.is_cpu or not plain(mask, options):
        return None
    shape, dtype = key.shape, query.dtype
    if shape[0] != batch or shape[2] == 0 or shape[3] != width or heads % shape[1] or value.shape != shape:
        return None
    if dtype not in TYPES or not dtype is key.dtype is value.dtype or options.get("output_attentions"):
        return None
    if not query.stride(3) == key.stride(3) == value.stride(3) == 1:
        return None
    if not torch.backends.cuda.flash_sdp_enabled():  # type: ignore[no-untyped-call]
        return None
    scale = options.get("scaling")
    return torch._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)[0].transpose(
        1, 2
    )


def _dtype(query: Tensor) -> torch.dtype:
    """What the kernel computes in: under autocast the type that autocast gives to attention, else that of q."""
    if query.dtype == torch.float32 and autocasts(query.device):
        return torch.get_autocast_dtype(query.device.type)
    return query.dtype


def prepared(
    query: Tensor, key: Tensor, value: Tensor, mask: Any, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """q, k, v and the mask as the kernels take them: of one type, an additive mask for as many keys as there are."""
    dtype = _dtype(query)
    if causal and key.shape[2] > query.shape[2]:
        key, value = (t[:, :, : query.shape[2]] for t in (key, value))
    additive = _additive(mask, dtype, key.shape[2]) if isinstance(mask, Tensor) else None
    if query.dtype == key.dtype == value.dtype == dtype:
        return query, key, value, additive
    return query.to(dtype), key.to(dtype), value.to(dtype), additive


def attention_with_mass(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, mask: Any, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Content attention o (B, Hq, T, dv) and L (B, Hq, T).

    query (B, Hq, T, d); key and value (B, Hkv, S, d). `causal` is for the case without a mask. Rows that see nothing
    get L = -inf, where the kernel says 0.
    """
    output, mass = attention(*prepared(query, key, value, mask, causal), causal, scale)
    if visible is not None and not causal:
        mass = mass.masked_fill(~visible.any(-1), -torch.inf)
    return output, mass


def question(content: Content, value: Tensor) -> Question:
    """A call of the interface that `applicable` admits, as `joint` takes it."""
    causal, visible = content.causal(), None
    q, k, v, additive = prepared(content.query, content.key, value, content.mask, causal)
    if content.mask is not None:
        visible = content.visible()
    blind = None if visible is None else ~visible.any(-1)
    return Question(q, k, v, additive, blind, causal, content.scaling())


def additive_and_blind(mask: Tensor, dtype: torch.dtype, length: int) -> tuple[Tensor, Tensor]:
    """A mask as numbers, for the first `length` keys, and the queries that see none of them."""
    return _additive(mask, dtype, length), ~seen(mask, length).any(-1)


def _additive(mask: Tensor, dtype: torch.dtype, length: int) -> Tensor:
    """A mask of booleans or numbers as numbers, for the first `length` keys."""
    if mask.dtype == torch.bool:
        lowest = -torch.inf if mask.device.type == "cpu" else torch.finfo(dtype).min
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, lowest)
    return mask[..., :length].to(dtype)

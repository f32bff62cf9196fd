"""What the content softmax saw: its log-sum-exp L and the number of visible keys, per query.

Read from the kernel that computes the content attention where it tells (`ctxpeft.hosts.fused`), else recomputed from
q, k and the mask the host handed over, in fp32. Exact, gradients included, for every mask that the backends build.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_mask

from ctxpeft.blocks.capture import compute_dtype
from ctxpeft.errors import HostError


@dataclass
class Content:
    """One call of the attention interface: query (B, Hq, Tq, d), key (B, Hkv, Tk, d), its mask and its options."""

    module: nn.Module
    query: Tensor
    key: Tensor
    mask: Any
    options: dict[str, Any]
    backend: str

    def log_mass(self) -> Tensor:
        """L (B, Hq, Tq): log-sum-exp of the scaled, capped, masked content scores, attention sinks included."""
        batch, heads, tokens, width = self.query.shape
        kv_heads, length = self.key.shape[1], self.key.shape[2]
        dtype = compute_dtype(self.query.dtype)
        q = self.query.to(dtype).reshape(batch, kv_heads, heads // kv_heads * tokens, width)
        score = torch.matmul(q, self.key.to(dtype).transpose(2, 3)) * self.scaling()
        score = score.reshape(batch, heads, tokens, length)
        softcap = self.options.get("softcap")
        if softcap is not None:
            score = torch.tanh(score / softcap) * softcap
        bias = self.options.get("position_bias")
        if bias is not None:
            score = score + bias
        visible = self.visible()
        if visible is not None:
            score = score.masked_fill(~visible, -torch.inf)
        if isinstance(self.mask, Tensor) and self.mask.is_floating_point():
            score = score + torch.where(
                self.mask > _lowest(self.mask), self.mask, torch.zeros_like(self.mask)
            ).to(dtype)
        sinks = self.options.get("s_aux")
        if sinks is not None:
            score = torch.cat([score, sinks.to(dtype).view(1, -1, 1, 1).expand(batch, heads, tokens, 1)], -1)
        return torch.logsumexp(score, -1)

    def scaling(self) -> float:
        """The factor on the content scores."""
        return scaling(self.query, self.options)

    def key_count(self) -> Tensor:
        """Visible content keys of each query, broadcastable to (B, Hq, Tq)."""
        visible = self.visible()
        if visible is None:
            return torch.full((1, 1, 1), self.key.shape[2], device=self.query.device)
        return visible.sum(-1)

    def causal(self) -> bool:
        """Whether the backend masks later keys by itself: it was given no mask and several queries."""
        if self.mask is not None or self.backend == "eager" or self.query.shape[2] == 1:
            return False
        told = self.options.get("is_causal")
        return bool(getattr(self.module, "is_causal", True) if told is None else told)

    def visible(self) -> Tensor | None:
        """Booleans broadcastable to (B, Hq, Tq, Tk), or None where every query sees every key."""
        tokens, length = self.query.shape[2], self.key.shape[2]
        if "flash" in self.backend:
            return self._visible_to_flash()
        if self.mask is None:
            if not self.causal():
                return None
            return torch.ones(tokens, length, dtype=torch.bool, device=self.query.device).tril()[None, None]
        if isinstance(self.mask, BlockMask):
            batch, heads = self.mask.shape[:2]
            return create_mask(self.mask.mask_mod, batch, heads, tokens, length, str(self.query.device))
        if not isinstance(self.mask, Tensor) or self.mask.ndim != 4:
            raise HostError(
                f"reading the content's log-mass under the attention backend '{self.backend}' is not supported; "
                "use model.set_attn_implementation('sdpa') or 'eager', or a variant without placement 'inside'"
            )
        return seen(self.mask, length)

    def _visible_to_flash(self) -> Tensor | None:
        """The flash kernels are told the padding (B, S) or nothing, and mask by themselves: the last query stands at
        the last key that the padding mask knows, later keys and those beyond the window are not seen.

        Raises HostError for packed rows, whose borders the kernel takes from other arguments.
        """
        if self.mask is None and self.options.get("cu_seq_lens_q") is not None:
            raise HostError(
                "reading the content's log-mass of packed rows under a flash backend is not supported; use "
                "model.set_attn_implementation('sdpa'), rows that are padded, or a variant without placement 'inside'"
            )
        tokens, length, device = self.query.shape[2], self.key.shape[2], self.query.device
        known = length if self.mask is None else self.mask.shape[-1]
        key = torch.arange(length, device=device)
        query = torch.arange(known - tokens, known, device=device)[:, None]
        told = self.options.get("is_causal")
        causal = bool(getattr(self.module, "is_causal", True) if told is None else told)
        visible = key < known
        if causal:
            visible = visible & (key <= query)
        window = self.options.get("sliding_window")
        if window is not None and length > window:
            visible = visible & ((query - key).abs() < window)
        visible = visible.expand(tokens, length)[None, None]
        if self.mask is None:
            return visible
        padding = functional.pad(self.mask.bool(), (0, length - known))
        return visible & padding[:, None, None]


def scaling(query: Tensor, options: dict[str, Any]) -> float:
    """The factor on the scores of a call of the attention interface."""
    told = options.get("scaling")
    return float(query.shape[-1] ** -0.5 if told is None else told)


def seen(mask: Tensor, length: int) -> Tensor:
    """The booleans of a mask of booleans or numbers, for the first `length` keys."""
    visible = mask if mask.dtype == torch.bool else mask > _lowest(mask)
    return visible[..., :length]


def _lowest(mask: Tensor) -> float:
    """Anything at or below half of the dtype's most negative number is 'masked' to every backend."""
    return float(torch.finfo(mask.dtype).min) / 2

"""Where each model family keeps what the seam needs, as data. A new family is one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["BTW", "BTHd", "BHTd"]


@dataclass(frozen=True)
class Family:
    """Attribute names inside a decoder layer.

    projections: the modules of q, k, v, or the name of one fused projection that yields them in this order.
    query_norm, key_norm: norms applied to q and k before RoPE, and `norm_layout`, the shape they act on (W is all
    heads side by side). output: the projection behind the heads. rotary: whether every layer turns its keys by the
    model's rotary embedding (or says `use_rope = False`).
    """

    attention: str = "self_attn"
    ffn: str = "mlp"
    projections: tuple[str, str, str] | str = ("q_proj", "k_proj", "v_proj")
    query_norm: str | None = None
    key_norm: str | None = None
    norm_layout: Layout = "BTHd"
    output: str = "o_proj"
    rotary: bool = True


_LLAMA = Family()
_QUERY_NORM = Family(query_norm="q_norm", key_norm="k_norm")

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    "starcoder2": _LLAMA,
    "qwen3": _QUERY_NORM,
    "gemma3_text": Family(query_norm="q_norm", key_norm="k_norm", norm_layout="BHTd"),
    "olmo2": Family(query_norm="q_norm", key_norm="k_norm", norm_layout="BTW"),
    "phi3": Family(projections="qkv_proj"),
    "gpt2": Family(attention="attn", projections="c_attn", output="c_proj", rotary=False),
}

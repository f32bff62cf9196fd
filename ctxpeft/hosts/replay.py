"""Keys and values of given hidden states by the attention's own forward, stopped where it calls the interface.

For attention whose K and V are no plain chain of modules (multi-head latent attention, norms behind RoPE). Every state
is a row of one token at position 0, where a rotary embedding is the identity.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.backend import SEAM

Arguments = dict[str, Any]
FORGOTTEN = ("past_key_values", "past_key_value", "layer_past", "cache")
"""Arguments that hold other tokens: the replay has none."""


class _CaughtError(Exception):
    """Leaves the forward with what it was about to attend to."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        super().__init__()
        self.key, self.value = key, value


class _Catcher:
    """Stands where the seam stands, for one call."""

    original_config: Any = None

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> Any:
        raise _CaughtError(key, value)


def bound(attention: Any, args: Any, kwargs: Arguments) -> Arguments:
    """The arguments of a call of an attention module by name, those of `**kwargs` among them."""
    found: Arguments = dict(inspect.signature(attention.forward).bind_partial(*args, **kwargs).arguments)
    rest: Arguments = found.pop("kwargs", {})
    return found | rest


def keys_and_values(attention: Any, arguments: Arguments, x: Tensor) -> tuple[Tensor, Tensor]:
    """(P, D) -> K (Hkv, P, d), V (Hkv, P, dv), given the arguments of another call of the same attention.

    Raises HostError where the forward never calls the interface.
    """
    held = attention.__dict__[SEAM]
    attention.__dict__[SEAM] = _Catcher()
    try:
        attention.forward(**_at_zero(arguments, x))
    except _CaughtError as caught:
        return caught.key[:, :, 0].transpose(0, 1), caught.value[:, :, 0].transpose(0, 1)
    finally:
        attention.__dict__[SEAM] = held
    raise HostError(f"{type(attention).__name__} did not call transformers' attention interface")


def _at_zero(arguments: Arguments, x: Tensor) -> Arguments:
    """The same call for rows of one token at position 0 that see themselves; what layers share is copied."""
    rows = x.shape[0]
    out = {name: None if name in FORGOTTEN else value for name, value in arguments.items()}
    out |= {name: copy.copy(value) for name, value in out.items() if isinstance(value, MutableMapping)}
    out["hidden_states"] = x[:, None]
    mask = out.get("attention_mask")
    if isinstance(mask, Tensor):
        out["attention_mask"] = x.new_full((rows, 1, 1, 1), int(mask.dtype == torch.bool), dtype=mask.dtype)
    if out.get("position_embeddings") is not None:
        out["position_embeddings"] = _identity_rotation(out["position_embeddings"], rows)
    for name, shape in (("position_ids", (rows, 1)), ("cache_position", (1,))):
        if isinstance(out.get(name), Tensor):
            out[name] = torch.zeros(shape, dtype=torch.long, device=x.device)
    return out


def _identity_rotation(embeddings: Any, rows: int) -> Any:
    """cos and sin (or the complex factors) of position 0, with the scale they have."""
    if isinstance(embeddings, Tensor):
        return embeddings[:1, :1].abs().to(embeddings.dtype).expand(rows, *embeddings[:1, :1].shape[1:])
    cos, sin = (part[..., :1, :] for part in embeddings)
    scale = (cos.square() + sin.square()).sqrt()
    shape = (rows, *scale.shape[1:])
    return scale[:1].expand(shape), torch.zeros_like(scale[:1]).expand(shape)

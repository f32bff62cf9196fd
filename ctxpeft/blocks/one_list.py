"""Slots laid in front of the content's keys, as one list for one call of a kernel.

On a CPU a second call costs more than a copy of the keys, and than a causal mask that is written out, as long as there
are no more keys than the kernel takes at a time: attention with gradients takes .9 of the time of two calls with 32
slots before 64 tokens, 1.2 of it with as many before 1024, whose later keys a causal kernel leaves out.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 512
"""Keys that the kernel of the CPU takes at a time."""


def pays(q: Tensor, k: Tensor, slot_k: Tensor) -> bool:
    """Whether one list is to be made of k (B, G, S, d) and slots (G, P, d), asked by q (B, H, T, d). For few
    queries the keys of a long cache are not copied; keys of less precision than the slots would round them."""
    return (
        not torch.compiler.is_compiling()  # asked first, for no size to become a condition of a graph
        and q.device.type == "cpu"
        and 1 < k.shape[2] <= 2 * q.shape[2]
        and q.dtype == slot_k.dtype
        and k.shape[1] == slot_k.shape[0]
        and k.shape[2] + slot_k.shape[1] <= BLOCK
        and type(q) is Tensor  # a mask that is kept is none of a FakeTensor's mode
    )


def laid(
    k: Tensor, v: Tensor, mask: Tensor | None, causal: int, slot_k: Tensor, slot_v: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """K and V (B, G, P + S, ...) and the additive mask over them, which all queries see the slots through. causal: how
    many queries see earlier keys alone, 0 if all see all."""
    count = slot_k.shape[1]
    if mask is not None:
        mask = functional.pad(mask.expand(-1, -1, -1, k.shape[2]), (count, 0))
    elif causal:
        mask = _causal(causal, k.shape[2], count, k.dtype)
    return _joined(slot_k, k), _joined(slot_v, v), mask


def _joined(slots: Tensor, content: Tensor) -> Tensor:
    return torch.cat((slots.expand(len(content), -1, -1, -1), content), 2)


@functools.lru_cache(maxsize=8)
def _causal(tokens: int, keys: int, slots: int, dtype: torch.dtype) -> Tensor:
    """(1, 1, T, P + S): 0 where a query may look, else minus infinity. A few are kept, for all layers and passes; no
    autograd function saves one, so it does not matter in which mode they were made."""
    later = torch.full((tokens, keys), -torch.inf, dtype=dtype, device="cpu").triu(1)
    return functional.pad(later, (slots, 0))[None, None]

"""What a module may look at. Everything is captured before any merge.

Shapes: B batch, T tokens, Hq query heads, d query width, dv value width, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ProjectKV = Callable[[Tensor], tuple[Tensor, Tensor]]
RotateBack = Callable[[Tensor, int], Tensor]
PromptKV = Callable[[nn.Module], tuple[Tensor, Tensor]]
Chosen = slice | Tensor
"""Rows of a batch: those side by side, or their numbers."""


@dataclass
class Capture:
    """The state of one site in one forward pass.

    rotated, unrotated: (B, Hq, T, d) or None where the site has no queries. hidden: (B, 1, T, D), what enters the
    block. output: the content o, (B, Hq, T, dv) at the head site, (B, 1, T, D) elsewhere. log_mass: L, (B, Hq, T),
    the log-sum-exp of the content scores, sinks included. key_count: visible content keys of each query,
    broadcastable to (B, Hq, T). project_kv: the host's frozen W_K and W_V, (P, D) -> (Hkv, P, d), (Hkv, P, dv).
    positions: (B, T) or (1, T), the position of each token in its sequence, from 0. rotate_back: keys (G, P, d) and a
    number of positions -> the keys that many positions earlier, by the host's own rotary embedding.
    prompt_kv: the owner of virtual tokens -> this layer's K (Hkv, P, d) and V (Hkv, P, dv) for them. projections: where
    the host's modules are that `project_kv` goes through, None where it cannot be told what they do.
    The last seven are functions, so that nobody pays for what no module asks. continues: whether the pass goes on with
    a cache; None where nothing may be kept from pass to pass.
    """

    output: Tensor
    hidden: Tensor | None = None
    rotated: Tensor | None = None
    unrotated: Tensor | None = None
    log_mass: Callable[[], Tensor] | None = None
    key_count: Callable[[], Tensor] | None = None
    project_kv: ProjectKV | None = None
    positions: Callable[[], Tensor] | None = None
    rotate_back: RotateBack | None = None
    prompt_kv: PromptKV | None = None
    projections: Callable[[], list[tuple[dict[str, Any], str]] | None] | None = None
    continues: bool | None = None

    def source(self, name: str, heads: Tensor | None) -> Tensor:
        """(B, H, T, width) of a query source; `heads` selects, None takes all. `hidden` has one head, H = 1."""
        x = getattr(self, name)
        assert x is not None, f"the host captured no '{name}'"
        chosen: Tensor = x if heads is None or x.shape[1] == 1 else x.index_select(1, heads)
        return chosen

    def rows(self, chosen: Chosen) -> Capture:
        """The same state for some rows of the batch, as views where they lie side by side."""
        batch = self.output.shape[0]
        if isinstance(chosen, slice) and chosen == slice(0, batch):
            return self

        def pick(t: Tensor) -> Tensor:
            return choose(t, chosen) if t.shape[0] == batch else t  # else one that all rows share

        def later(ask: Callable[[], Tensor] | None) -> Callable[[], Tensor] | None:
            return None if ask is None else lambda: pick(ask())

        def some(t: Tensor | None) -> Tensor | None:
            return None if t is None else pick(t)

        return replace(
            self,
            output=pick(self.output),
            hidden=some(self.hidden),
            rotated=some(self.rotated),
            unrotated=some(self.unrotated),
            log_mass=later(self.log_mass),
            key_count=later(self.key_count),
            positions=later(self.positions),
        )


def choose(t: Tensor, chosen: Chosen) -> Tensor:
    """Some rows of a tensor (B, ...)."""
    return t[chosen] if isinstance(chosen, slice) else t.index_select(0, chosen)


class Read(NamedTuple):
    """What a memory answers: numerator n (B, H, T, dv), mass m (B, H, T) and shift c (B, H, T), so that the
    unnormalised read is e^c n and the mass e^c m.

    m and c are None where a signed read has no mass; m alone is None where it is 1: n is then the normalised read, and
    e^c its mass.
    """

    n: Tensor
    m: Tensor | None = None
    c: Tensor | None = None


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Memories, gates and merges are computed in fp32, or in fp64 on an fp64 host."""
    return torch.promote_types(dtype, torch.float32)

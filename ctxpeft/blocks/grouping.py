"""Query heads folded onto the parameter sets they share, without repeating a parameter."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.spec.blocks import Per, SiteShape


class Grouping(nn.Module):
    """(B, H, T, w) <-> (B, G, (H/G) T, w), where the H/G heads of a group share one set of parameters.

    Raises HostError if a head scope takes unequal numbers of heads from the groups.
    """

    order: Tensor | None
    inverse: Tensor | None

    def __init__(self, shape: SiteShape, per: Per) -> None:
        super().__init__()
        groups = shape.group_of_heads(per)
        self.group_of_head = groups
        self.groups = len(set(groups))
        self.heads = len(groups)
        if len(set(Counter(groups).values())) > 1:
            raise HostError(
                f"scope.heads takes unequal numbers of heads from the groups of per '{per}'; "
                "take the same number from each, or use per 'query_head' or 'layer'"
            )
        moved = groups != sorted(groups)
        order = sorted(range(self.heads), key=lambda h: groups[h]) if moved else []
        inverse = sorted(range(self.heads), key=lambda i: order[i]) if moved else []
        self.trivial = self.groups == self.heads and not moved
        self.register_buffer(
            "order", torch.tensor(order, device=shape.device) if moved else None, persistent=False
        )
        self.register_buffer(
            "inverse", torch.tensor(inverse, device=shape.device) if moved else None, persistent=False
        )

    def fold(self, x: Tensor) -> Tensor:
        """(B, H or 1, T, w) -> (B, G, (H/G) T, w). One head stands for all of them."""
        if self.trivial and x.shape[1] == self.heads:
            return x
        batch, heads, tokens, width = x.shape
        if heads == 1 and self.heads > 1:
            if self.groups == 1:
                return x
            x = x.expand(batch, self.heads, tokens, width)
        elif self.order is not None:
            x = x.index_select(1, self.order)
        return x.reshape(batch, self.groups, -1, width)

    def unfold(self, x: Tensor, tokens: int) -> Tensor:
        """(B, G, N, w) -> (B, H, T, w), the inverse of `fold`; a single folded head is broadcast."""
        if self.trivial and x.shape[2] == tokens:
            return x
        batch, _, count, width = x.shape
        if self.groups == 1 and count == tokens and self.heads > 1:
            return x.expand(batch, self.heads, tokens, width)
        x = x.reshape(batch, self.heads, tokens, width)
        return x if self.inverse is None else x.index_select(1, self.inverse)

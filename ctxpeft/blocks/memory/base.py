"""The torch side of a memory: folded queries in, numerator, mass and shift out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, Read

Phi = Callable[[Tensor], Tensor]


class MemoryModule(nn.Module, ABC):
    """Answers folded queries (B, G, N, w); N runs over the heads that share a parameter set and the tokens.

    maps: the memory takes q' (B, H, T, d) as it is, and maps and folds it by itself.
    """

    maps = False

    @abstractmethod
    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        """x is phi(q') where the memory is read through a feature map, else q'. Folded shapes in, folded shapes out.

        `capture` is what the site shows beside the query; most memories do not look at it.
        """

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        return sum(p.numel() for p in self.parameters())

"""The first slots as they began, the others trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.blocks import SlotShape


class FrozenFirst(nn.Module):
    """K (G, F, d) and V (G, F, dv), saved and not trained, before the slots of any parameterization (Cartridges keep
    their first token as an attention sink, arXiv:2506.06266)."""

    key: Tensor
    value: Tensor

    def __init__(self, trained: nn.Module, wanted: SlotShape) -> None:
        super().__init__()
        self.trained = trained
        self.alone = getattr(trained, "alone", False)
        self.projected = getattr(trained, "projected", False)
        self.register_buffer("key", torch.empty(wanted.keys()))
        self.register_buffer("value", torch.empty(wanted.values()))
        wanted.key_init.fill_(self.key)
        wanted.value_init.fill_(self.value)

    def forward(self, capture: Capture) -> tuple[Tensor, Tensor]:
        key, value = self.trained(capture)
        return torch.cat([self.key, key], 1), torch.cat([self.value, value], 1)

    def deployed_parameters(self) -> int:
        """Numbers that remain once training is over, the frozen ones among them."""
        kept: int = self.trained.deployed_parameters()  # type: ignore[operator]
        return kept + self.key.numel() + self.value.numel()

"""How much each query token lets in of each slot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.spec.blocks import SiteShape


class SlotGates(nn.Module):
    """a_tj = lambda sigmoid(w_j^T x_t + c_j), x (T, D) the hidden state: W (P, D), c (P) and lambda, one set a layer.

    APT, arXiv:2305.15212, with the gate of every query token its own, which keeps it causal. W and c start
    at 0 and lambda at 2: every gate starts at 1.
    """

    def __init__(self, count: int, shape: SiteShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, shape.hidden_width))
        self.bias = nn.Parameter(torch.zeros(count))
        self.scale = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, capture: Capture, like: Tensor) -> Tensor:
        """Gates shaped as the folded scores `like`, (B, G, N, P), N heads of a group times tokens."""
        assert capture.hidden is not None
        x = capture.hidden[:, 0].to(self.weight.dtype)
        gate = self.scale * torch.sigmoid(x @ self.weight.T + self.bias)
        batch, groups, count, slots = like.shape
        heads = count // gate.shape[1]
        return gate[:, None].repeat(1, 1, heads, 1).expand(batch, groups, count, slots)

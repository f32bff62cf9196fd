"""Random attention problems without a model: the ground on which the equations are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import compose
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec


@dataclass
class Heads:
    """Queries (B, Hq, T, d), keys (B, Hkv, S, d), values (B, Hkv, S, dv), visibility (B, T, S), all float64."""

    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor
    hidden: Tensor
    unrotated: Tensor
    scaling: float

    @classmethod
    def random(
        cls,
        seed: int,
        batch: int,
        kv_heads: int,
        repeat: int,
        tokens: int,
        width: int,
        value_width: int,
        mask: str,
    ) -> Heads:
        """A problem with `mask` one of causal, padded (left, by row), window (2 tokens), full."""
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=g).requires_grad_()

        causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        visible = causal.expand(batch, tokens, tokens).clone()
        if mask == "full":
            visible[:] = True
        elif mask == "window":
            visible &= ~torch.ones(tokens, tokens, dtype=torch.bool).tril(-2)
        elif mask == "padded":
            for row in range(batch):
                visible[row, :, : row % tokens] = False
                visible[row] |= torch.eye(tokens, dtype=torch.bool)
        return cls(
            normal(batch, kv_heads * repeat, tokens, width),
            normal(batch, kv_heads, tokens, width),
            normal(batch, kv_heads, tokens, value_width),
            visible,
            normal(batch, 1, tokens, 5),
            normal(batch, kv_heads * repeat, tokens, width),
            width**-0.5,
        )

    @property
    def repeat(self) -> int:
        """Query heads per kv head."""
        return self.query.shape[1] // self.key.shape[1]

    def inputs(self) -> dict[str, Tensor]:
        """What gradients are taken for."""
        return {"query": self.query, "key": self.key, "value": self.value}

    def shape(self, heads: tuple[int, ...] | None = None) -> SiteShape:
        """The site as a block sees it."""
        count = self.query.shape[1]
        return SiteShape(
            query_heads=count,
            kv_heads=self.key.shape[1],
            heads=heads or tuple(range(count)),
            source_width=self.query.shape[-1],
            value_width=self.value.shape[-1],
            hidden_width=5,
            scaling=self.scaling,
            softcap=None,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )

    def module(
        self, spec: dict[str, Any], seed: int = 0, heads: tuple[int, ...] | None = None
    ) -> ContextModule:
        """A module for this site, every parameter moved away from its init so that no term vanishes."""
        torch.manual_seed(seed)
        module = ContextModule(ModuleSpec.model_validate(spec), self.shape(heads))
        for parameter in module.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        return module

    def content(self) -> tuple[Tensor, Tensor]:
        """o (B, Hq, T, dv) and L (B, Hq, T) by dense attention."""
        key, value = (t.repeat_interleave(self.repeat, 1) for t in (self.key, self.value))
        score = self.scaling * self.query @ key.transpose(2, 3)
        score = score.masked_fill(~self.visible[:, None], -torch.inf)
        return torch.softmax(score, -1) @ value, torch.logsumexp(score, -1)

    def capture(self) -> Capture:
        """What a module may look at."""
        output, mass = self.content()
        return Capture(
            output=output,
            hidden=self.hidden,
            rotated=self.query,
            unrotated=self.unrotated,
            log_mass=lambda: mass,
            key_count=lambda: self.visible.sum(-1)[:, None],
            positions=lambda: torch.arange(self.query.shape[2])[None],
        )

    def composed(self, *modules: ContextModule) -> Tensor:
        """The fast path."""
        return compose(self.capture(), [(module, None) for module in modules])[0]

    def per_head(self, function: Callable[..., Tensor]) -> Tensor:
        """A naive equation run for every row and head: function(q, k, v, visible, scaling, head) -> (T, dv)."""
        rows = [
            torch.stack(
                [
                    function(
                        self.query[b, h],
                        self.key[b, h // self.repeat],
                        self.value[b, h // self.repeat],
                        self.visible[b],
                        self.scaling,
                        h,
                    )
                    for h in range(self.query.shape[1])
                ]
            )
            for b in range(self.query.shape[0])
        ]
        return torch.stack(rows)

"""Random attention problems without a model: the ground on which the equations are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ctxpeft.blocks.attention import Question, serves
from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import compose, compose_jointly, joinable
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.naive import Head
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec

Mask = Literal["causal", "padded", "right_padded", "window", "full"]
MASKS: tuple[Mask, ...] = get_args(Mask)


@dataclass(frozen=True)
class Problem:
    """Which random problem: it is printed as a counterexample, and makes the same heads every time.

    mask: causal, padded (left, row i by i positions), right_padded (the same at the end), window (the last `window`
    keys), full. past: keys before the first query, as a cache holds them. sinks: a learned score a head without a
    value. softcap: the cap on content scores.
    """

    seed: int = 0
    batch: int = 1
    kv_heads: int = 1
    repeat: int = 1
    tokens: int = 1
    width: int = 1
    value_width: int = 1
    mask: Mask = "causal"
    window: int = 2
    past: int = 0
    sinks: bool = False
    softcap: float | None = None

    def heads(self) -> Heads:
        """The tensors."""
        g = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=g).requires_grad_()

        heads, length = self.kv_heads * self.repeat, self.tokens + self.past
        return Heads(
            query=normal(self.batch, heads, self.tokens, self.width),
            key=normal(self.batch, self.kv_heads, length, self.width),
            value=normal(self.batch, self.kv_heads, length, self.value_width),
            visible=self.visible(),
            hidden=normal(self.batch, 1, self.tokens, 5),
            unrotated=normal(self.batch, heads, self.tokens, self.width),
            scaling=self.width**-0.5,
            sinks=normal(heads) if self.sinks else None,
            softcap=self.softcap,
            seed=self.seed,
        )

    def visible(self) -> Tensor:
        """(B, T, S) booleans: which keys a query sees. Every query sees at least one."""
        tokens, length = self.tokens, self.tokens + self.past
        own = torch.eye(length, dtype=torch.bool)[self.past :]
        causal = torch.ones(length, length, dtype=torch.bool).tril()[self.past :]
        visible = causal.expand(self.batch, tokens, length).clone()
        if self.mask == "full":
            visible[:] = True
        elif self.mask == "window":
            visible &= ~torch.ones(length, length, dtype=torch.bool).tril(-self.window)[self.past :]
        elif self.mask in ("padded", "right_padded"):
            for row in range(self.batch):
                count = row % length
                padding = slice(count) if self.mask == "padded" else slice(length - count, length)
                visible[row, :, padding] = False
                visible[row] |= own
        return visible


@dataclass
class Heads:
    """Queries (B, Hq, T, d), keys (B, Hkv, S, d), values (B, Hkv, S, dv), visibility (B, T, S), all float64.

    sinks (Hq,): a score a head that takes mass and has no value. softcap: the cap on content scores. seed: for
    whatever else a law draws.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor
    hidden: Tensor
    unrotated: Tensor
    scaling: float
    sinks: Tensor | None = None
    softcap: float | None = None
    seed: int = 0

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
        mask: Mask,
    ) -> Heads:
        """A problem without sinks, softcap and past; see `Problem`."""
        return Problem(seed, batch, kv_heads, repeat, tokens, width, value_width, mask).heads()

    @property
    def repeat(self) -> int:
        """Query heads per kv head."""
        return self.query.shape[1] // self.key.shape[1]

    def inputs(self) -> dict[str, Tensor]:
        """What gradients are taken for."""
        inputs = {"query": self.query, "key": self.key, "value": self.value}
        return inputs if self.sinks is None else {**inputs, "sinks": self.sinks}

    def changed(self, **tensors: Any) -> Heads:
        """The same problem with other tensors in some places."""
        return replace(self, **tensors)

    def shape(self, heads: tuple[int, ...] | None = None, source: str | None = "rotated") -> SiteShape:
        """The site as a block that asks with `source` sees it."""
        count = self.query.shape[1]
        widths = {"hidden": self.hidden.shape[-1], "output": self.value.shape[-1]}
        return SiteShape(
            query_heads=count,
            kv_heads=self.key.shape[1],
            heads=heads or tuple(range(count)),
            source_width=widths.get(str(source), self.query.shape[-1]),
            value_width=self.value.shape[-1],
            hidden_width=self.hidden.shape[-1],
            scaling=self.scaling,
            softcap=self.softcap,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )

    def module(
        self,
        spec: dict[str, Any] | ModuleSpec,
        seed: int = 0,
        heads: tuple[int, ...] | None = None,
        moved: float = 0.3,
        dtype: torch.dtype = torch.float64,
    ) -> ContextModule:
        """A module for this site on a host of type `dtype`, every parameter moved from its init (by `moved` standard
        deviations of 1) so that no term vanishes."""
        torch.manual_seed(seed)
        checked = ModuleSpec.model_validate(spec)
        module = ContextModule(checked, replace(self.shape(heads, checked.query.source), dtype=dtype))
        for parameter in module.parameters():
            parameter.data.add_(moved * torch.randn_like(parameter))
        return module

    def scores(self) -> Tensor:
        """(B, Hq, T, S): scaled, capped, minus infinity where a query does not see a key."""
        score = self.scaling * self.query @ self.key.repeat_interleave(self.repeat, 1).transpose(2, 3)
        if self.softcap is not None:
            score = torch.tanh(score / self.softcap) * self.softcap
        return score.masked_fill(~self.visible[:, None], -torch.inf)

    def content(self) -> tuple[Tensor, Tensor]:
        """o (B, Hq, T, dv) and L (B, Hq, T) by dense attention, sinks included."""
        score = self.scores()
        if self.sinks is not None:
            score = torch.cat([score, self.sinks[None, :, None, None].expand(*score.shape[:3], 1)], -1)
        weight = torch.softmax(score, -1)[..., : self.key.shape[2]]
        return weight @ self.value.repeat_interleave(self.repeat, 1), torch.logsumexp(score, -1)

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
            project_kv=self.project_kv,
            positions=lambda: torch.arange(self.query.shape[2])[None],
        )

    def project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A host's frozen projections: (P, D) -> K (Hkv, P, d), V (Hkv, P, dv)."""
        g = torch.Generator().manual_seed(self.seed)
        widths = (self.key.shape[-1], self.value.shape[-1])
        shapes = [(self.key.shape[1], x.shape[-1], width) for width in widths]
        key, value = (
            x @ torch.randn(*shape, dtype=torch.float64, generator=g).to(x.dtype) for shape in shapes
        )
        return key, value

    def composed(self, *modules: ContextModule) -> Tensor:
        """The way that serves all modules: o and L first, then the merge."""
        return compose(self.capture(), [(module, None) for module in modules])[0]

    def composed_jointly(self, *modules: ContextModule) -> Tensor | None:
        """The way by kernels that know the whole, None where it does not serve these modules or these heads."""
        active = [(module, None) for module in modules]
        plain = self.sinks is None and self.softcap is None
        if not plain or not joinable(active) or not serves(self.query, self.key, self.value, masked=True):
            return None
        mask = torch.zeros(self.visible.shape, dtype=self.query.dtype).masked_fill(~self.visible, -torch.inf)
        asked = Question(self.query, self.key, self.value, mask[:, None], None, False, self.scaling)
        return compose_jointly(replace(self.capture(), output=self.query), active, asked)

    def per_head(self, function: Callable[[Head], Tensor]) -> Tensor:
        """A naive equation, (T, dv) of one head, run for every row and head: (B, Hq, T, dv)."""
        rows, count = range(self.query.shape[0]), range(self.query.shape[1])
        return torch.stack([torch.stack([function(self.head(b, h)) for h in count]) for b in rows])

    def head(self, row: int, number: int) -> Head:
        """One query head of one row, as the naive equations take it."""
        kv = number // self.repeat
        return Head(
            q=self.query[row, number],
            k=self.key[row, kv],
            v=self.value[row, kv],
            visible=self.visible[row],
            a=self.scaling,
            row=row,
            number=number,
            kv=kv,
        )

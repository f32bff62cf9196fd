"""A short list of key-value pairs: the prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.attention import attention, serves
from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.kept_pairs import KeptFrom, KeptPairs, Place
from ctxpeft.blocks.memory.base import MemoryModule, Phi
from ctxpeft.blocks.memory.slot_gates import SlotGates
from ctxpeft.blocks.parameterizations.direct import DirectSlots
from ctxpeft.blocks.parameterizations.frozen import FrozenFirst
from ctxpeft.blocks.products import grouped
from ctxpeft.spec.base import Domain, Later
from ctxpeft.spec.blocks import (
    FeatureMapSpec,
    Init,
    Looked,
    Mass,
    MemorySpec,
    Normalizer,
    Parameterization,
    Per,
    SiteShape,
    SlotShape,
)

MASS: dict[str, Mass] = {
    "softmax": "always",
    "norga": "always",
    "kernel": "positive_kernel",
    "relu": "never",
}
NORMALIZERS: dict[str, tuple[Normalizer, ...]] = {
    "softmax": ("softmax",),
    "norga": ("softmax",),
    "kernel": ("none", "sum"),
    "relu": ("none",),
}


class Slots(MemorySpec):
    """P pairs (k_j, v_j), asked by q' with one of four scores.

    softmax: n = sum_j e^{s_j} v_j, m = sum_j e^{s_j}, s_j = scaling q'^T k_j with the host's own scaling and softcap.
    norga: the same with s_j + alpha tanh(tau s_j) for s_j, alpha and tau learned and 1 at the start (NoRGa).
    kernel: the same with phi(q')^T phi(k_j) for e^{s_j}; with a mass that is 0 where rounding puts it below. relu: n =
    sum_j relu(scaling q'^T k_j) v_j, no mass.
    init fills keys and values; value_init, where given, the values.
    frozen: so many more slots come first and stay as they began (1 keeps an attention sink, Cartridges).
    gated: every query token scales the keys and values of each slot by its own gate, lambda sigmoid(w_j^T x + c_j),
    read from the hidden state x (APT).
    position: where rotated queries find the P = count + frozen slots. raw: the keys as they are. before: the keys are
    those of a cache filled at positions 0 to P-1 whose content starts at P, and are turned back by P at every read, so
    that no position of the content shifts. offset: the positions of the content are shifted by P instead, as absolute
    positions need. auto: before where the host rotates its keys by angles free of the input's length, else offset; the
    default of virtual tokens.
    """

    cites: ClassVar[str] = (
        "Prefix-Tuning, arXiv:2101.00190; parallel view, arXiv:2110.04366; NoRGa, arXiv:2405.14124; "
        "APT, arXiv:2305.15212"
    )
    equation: ClassVar[str] = "n = Σⱼ e^{sⱼ} vⱼ, m = Σⱼ e^{sⱼ}, sⱼ = qᵀkⱼ/√d"
    learning_rate: ClassVar[float] = 3e-2
    learning_rate_inside: ClassVar[float | None] = 1e-1
    kind: Literal["slots"] = "slots"
    count: Annotated[int, Field(ge=1, le=65536), Domain(1, 256, log=True)] = 32
    score: Literal["softmax", "norga", "kernel", "relu"] = "softmax"
    per: Per = "kv_head"
    parameterization: Parameterization = Field(default_factory=lambda: {"kind": "direct"})  # type: ignore[assignment]
    init: Init = Field(default_factory=lambda: {"kind": "normal"})  # type: ignore[assignment]
    value_init: Init | None = None
    frozen: Annotated[int, Field(ge=0), Domain(0, 1), Later()] = 0
    gated: Annotated[bool, Later()] = False
    position: Annotated[Literal["raw", "before", "offset", "auto"], Later()] = "raw"

    @model_validator(mode="after")
    def _prompts_have_a_position(self) -> Slots:
        if self.parameterization.virtual_tokens and "position" not in self.model_fields_set:
            object.__setattr__(self, "position", "auto")
        return self

    def total(self) -> int:
        """P, the frozen slots included."""
        return self.count + self.frozen

    def placed(self, turnable: bool) -> str:
        """`raw`, `before` or `offset` on a host whose keys can or cannot be turned back."""
        if self.position != "auto":
            return self.position
        return "before" if turnable else "offset"

    def usual_rate(self, placement: str) -> float:
        return self.parameterization.learning_rate or super().usual_rate(placement)

    def feature_map_use(self) -> Literal["required", "forbidden"]:
        return "required" if self.score == "kernel" else "forbidden"

    def mass(self) -> Mass:
        return MASS[self.score]

    def normalizers(self) -> tuple[Normalizer, ...]:
        return NORMALIZERS[self.score]

    def zero_read_at_init(self) -> bool:
        return self.parameterization.zero_values_at_init(self.value_init or self.init)

    def looks_at(self) -> tuple[Looked, ...]:
        looks = self.parameterization.looks_at
        return ("hidden", *looks) if self.gated else looks

    def written(self, query: str, phi: Callable[[str], str]) -> tuple[str, str]:
        if self.score == "kernel":
            return f"{phi(query)}ᵀ {phi('K')}ᵀ V", f"Σⱼ {phi(query)}ᵀ {phi('kⱼ')}"
        if self.score == "relu":
            return f"relu({query} Kᵀ/√d) V", ""
        score = "sⱼ + α tanh(τ sⱼ)" if self.score == "norga" else f"{query}ᵀ kⱼ/√d"
        if self.gated:
            return f"Σⱼ exp(aⱼ {score}) aⱼ vⱼ", f"Σⱼ exp(aⱼ {score})"
        if self.score == "norga":
            return f"Σⱼ exp({score}) vⱼ", f"Σⱼ exp({score})"
        return f"softmax({query} Kᵀ/√d) V", f"Σⱼ exp({score})"

    def written_normalised(self, query: str) -> str:
        plain = self.score == "softmax" and not self.gated
        return f"softmax({query} Kᵀ/√d) V" if plain else ""

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        return SlotMemory(self, shape, needs_mass)


class SlotMemory(MemoryModule):
    """K (G, P, d) and V (G, P, dv) of the parameterization, asked without repeating them per query head.

    alone: they compete as they are, and the parameterization, which says so of itself, looks at no capture.
    reads_plainly: what `forward` reads is `softmax_read` of the `pairs`.
    """

    def __init__(self, spec: Slots, shape: SiteShape, needs_mass: bool) -> None:
        super().__init__()
        self.score, self.scaling, self.needs_mass = spec.score, shape.scaling, needs_mass
        self.softcap = shape.softcap
        self.back = spec.total() if spec.placed(shape.turnable) == "before" else 0
        wanted = SlotShape(shape, spec.count, shape.groups(spec.per), spec.init, spec.value_init or spec.init)
        trained = spec.parameterization.build(wanted)
        frozen = replace(wanted, count=spec.frozen)
        self.slots = FrozenFirst(trained, frozen) if spec.frozen else trained
        joined = spec.frozen and getattr(trained, "alone", False)
        self.kept = KeptPairs() if joined or getattr(trained, "made", False) else None
        self.virtual = spec.parameterization.virtual_tokens
        self.turned = KeptFrom() if self.back or self.virtual else None
        self.gates = SlotGates(spec.total(), shape) if spec.gated else None
        self.plain = spec.score == "softmax" and not spec.gated and shape.softcap is None
        self.reads_plainly = self.plain and type(self).forward is SlotMemory.forward
        self.alone = self.plain and not self.back and getattr(self.slots, "alone", False)
        if spec.score == "norga":
            self.alpha = nn.Parameter(torch.ones(1))
            self.tau = nn.Parameter(torch.ones(1))

    def pairs(self, capture: Capture) -> tuple[Tensor, Tensor]:
        """K (G, P, d), turned back where they stand before the input, and V (G, P, dv)."""
        make: Callable[[], tuple[Tensor, Tensor]]
        if self.virtual:
            assert capture.prompt_kv is not None
            slots: Any = self.slots
            source, make = capture.prompt_kv(slots.prompt)[0], partial(slots, capture)
        else:
            pairs = self._made(capture.continues, capture)
            source, make = pairs[0], lambda: pairs
        if self.turned is None or torch.compiler.is_compiling():
            return self._turned_back(capture, make)
        return self.turned.of(capture.continues, source, partial(self._turned_back, capture, make))

    def _turned_back(
        self, capture: Capture, make: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        key, value = make()
        if self.back:
            assert capture.rotate_back is not None
            key = capture.rotate_back(key, self.back)
        return key, value

    def own_pairs(self, continues: Callable[[], bool | None]) -> tuple[Tensor, Tensor]:
        """`pairs` of slots that are `alone`: they look at no capture. `continues` says what a capture says."""
        slots: Any = self._modules["slots"]
        there, own = slots.__dict__, slots._parameters
        hooked = there["_forward_hooks"] or there["_forward_pre_hooks"] or "_hf_hook" in there
        if (
            isinstance(slots, DirectSlots) and not hooked and len(own) == 2
        ):  # a parametrized one is kept elsewhere
            return own["key"], own["value"]
        return self._made(continues(), None)

    def _made(self, continues: bool | None, capture: Capture | None) -> tuple[Tensor, Tensor]:
        """What the parameterization makes, or what it made of the same before."""
        if self.kept is None or torch.compiler.is_compiling():
            found: tuple[Tensor, Tensor] = self.slots(capture)
            return found
        return self.kept.of(continues, partial(self._makers, capture), partial(self.slots, capture))

    def _makers(self, capture: Capture | None) -> list[Place] | None:
        """The parameterization, and the host's projections where it goes through them."""
        mine: Place = (self._modules, "slots")
        if not getattr(self.slots, "projected", False):
            return [mine]
        told = None if capture is None or capture.projections is None else capture.projections()
        return None if told is None else [mine, *told]

    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        key, value = self.pairs(capture)
        if self.score == "kernel":
            assert phi is not None
            return self._by_kernel(x, phi(key), value)
        if self.plain and serves(x, key[None], value[None]):
            read, mass = self._attended(x, key, value)
            return Read(read, None, mass)
        score = grouped(x, key.transpose(1, 2)) * self.scaling
        if self.score == "relu":
            return Read(grouped(functional.relu(score), value))
        gate = None if self.gates is None else self.gates(capture, score)
        if gate is not None:
            score = gate * score
        if self.softcap is not None:
            score = torch.tanh(score / self.softcap) * self.softcap
        if self.score == "norga":
            score = score + self.alpha * torch.tanh(self.tau * score)
        c = score.detach().amax(-1)
        weight = torch.exp(score - c[..., None])
        read = weight if gate is None else weight * gate
        return Read(grouped(read, value), weight.sum(-1), c)

    def softmax_read(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """softmax(scaling x K^T) V of slots that are `plain`: (B, G, N, d) -> (B, G, N, dv)."""
        if serves(x, key[None], value[None]):
            return self._attended(x, key, value)[0]
        score = grouped(x, key.transpose(1, 2)) * self.scaling
        return grouped(torch.softmax(score, -1), value)

    def _attended(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        key, value = (t.expand(x.shape[0], -1, -1, -1) for t in (key, value))
        return attention(x, key, value, None, False, self.scaling)

    def _by_kernel(self, x: Tensor, key: Tensor, value: Tensor) -> Read:
        weight = grouped(x, key.expand(x.shape[1], -1, -1).transpose(1, 2))
        if not self.needs_mass:
            return Read(grouped(weight, value))
        weight = weight.clamp_min(0)
        m = weight.sum(-1)
        return Read(grouped(weight, value), m, torch.zeros_like(m))

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over; what K and V are made from stays where it is fewer."""
        folded: int = self.slots.deployed_parameters()  # type: ignore[operator]
        saved: int = sum(t.numel() for t in self.slots.state_dict().values())
        beside: int = sum(p.numel() for p in self.parameters()) - sum(
            p.numel() for p in self.slots.parameters()
        )
        return min(folded, saved) + beside

"""A short list of key-value pairs: the prefix."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.memory.base import MemoryModule, Phi
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Init, MemorySpec, Normalizer, Parameterization, Per, SiteShape


class Slots(MemorySpec):
    """P pairs (k_j, v_j), asked by q' with one of three scores.

    softmax: n = sum_j e^{s_j} v_j, m = sum_j e^{s_j}, s_j = scaling q'^T k_j with the host's own scaling and softcap.
    kernel: the same with phi(q')^T phi(k_j) for e^{s_j}. relu: n = sum_j relu(scaling q'^T k_j) v_j, no mass.
    init fills keys and values; value_init, where given, the values.
    """

    cites: ClassVar[str] = "Prefix-Tuning, arXiv:2101.00190; parallel view, arXiv:2110.04366"
    equation: ClassVar[str] = "n = Σⱼ e^{sⱼ} vⱼ, m = Σⱼ e^{sⱼ}, sⱼ = qᵀkⱼ/√d"
    kind: Literal["slots"] = "slots"
    count: Annotated[int, Field(ge=1, le=65536), Domain(1, 256, log=True)] = 32
    score: Literal["softmax", "kernel", "relu"] = "softmax"
    per: Per = "kv_head"
    parameterization: Parameterization = Field(default_factory=lambda: {"kind": "direct"})  # type: ignore[assignment]
    init: Init = Field(default_factory=lambda: {"kind": "normal"})  # type: ignore[assignment]
    value_init: Init | None = None

    def feature_map_use(self) -> Literal["required", "forbidden"]:
        return "required" if self.score == "kernel" else "forbidden"

    def mass(self) -> Literal["always", "positive_map", "never"]:
        by_score: dict[str, Literal["always", "positive_map", "never"]]
        by_score = {"softmax": "always", "kernel": "positive_map", "relu": "never"}
        return by_score[self.score]

    def normalizers(self) -> tuple[Normalizer, ...]:
        by_score: dict[str, tuple[Normalizer, ...]]
        by_score = {"softmax": ("softmax",), "kernel": ("none", "sum"), "relu": ("none",)}
        return by_score[self.score]

    def zero_read_at_init(self) -> bool:
        values = self.value_init or self.init
        return values.is_zero() and self.parameterization.kind == "direct"

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        return SlotMemory(self, shape, needs_mass)


class SlotMemory(MemoryModule):
    """K (G, P, d) and V (G, P, dv) of the parameterization, asked without repeating them per query head."""

    def __init__(self, spec: Slots, shape: SiteShape, needs_mass: bool) -> None:
        super().__init__()
        self.score, self.scaling, self.needs_mass = spec.score, shape.scaling, needs_mass
        self.softcap = shape.softcap
        self.slots = spec.parameterization.build(
            shape, spec.count, shape.groups(spec.per), spec.init, spec.value_init or spec.init
        )

    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        key, value = self.slots(capture)
        if self.score == "kernel":
            assert phi is not None
            key = phi(key)
            weight = torch.einsum("bgnw,gpw->bgnp", x, key.expand(x.shape[1], -1, -1))
            n = torch.einsum("bgnp,gpv->bgnv", weight, value)
            if not self.needs_mass:
                return Read(n)
            m = weight.sum(-1)
            return Read(n, m, torch.zeros_like(m))
        score = torch.einsum("bgnd,gpd->bgnp", x, key) * self.scaling
        if self.score == "relu":
            return Read(torch.einsum("bgnp,gpv->bgnv", functional.relu(score), value))
        if self.softcap is not None:
            score = torch.tanh(score / self.softcap) * self.softcap
        c = score.detach().amax(-1)
        weight = torch.exp(score - c[..., None])
        return Read(torch.einsum("bgnp,gpv->bgnv", weight, value), weight.sum(-1), c)

    def deployed_parameters(self) -> int:
        count: int = self.slots.deployed_parameters()  # type: ignore[operator]
        return count

"""No memory: the module only scales what is there."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from ctxpeft.spec.blocks import FeatureMapSpec, Looked, Per, PlainMemorySpec, SiteShape


class NoMemory(PlainMemorySpec):
    """For merge `scale`: o <- g * o."""

    cites: ClassVar[str] = "Gated attention, arXiv:2505.06708"
    equation: ClassVar[str] = "no read"
    learning_rate: ClassVar[float] = 9e-2
    kind: Literal["none"] = "none"

    def zero_read_at_init(self) -> bool:
        return True

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        return nn.Module()

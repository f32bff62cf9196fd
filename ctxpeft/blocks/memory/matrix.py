"""A free matrix read through a feature map: the memory of Prefix-Tuning+."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.capture import Capture, Read
from ctxpeft.blocks.grouping import Grouping
from ctxpeft.blocks.memory.base import MemoryModule, Phi
from ctxpeft.blocks.products import grouped, mapped
from ctxpeft.errors import HostError
from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import FeatureMapSpec, Init, Looked, Mass, MemorySpec, Normalizer, Per, SiteShape


class Matrix(MemorySpec):
    """n(q) = phi(q)^T M; with a mass, m(q) = phi(q)^T z and z = softplus(zeta) > 0.

    form: `full` M (w, dv); `low_rank` M = A B with rank `rank`, A at N(0, 1/rank) and B at `init`; `diagonal`, which
    needs w = dv. `init` fills M. The softplus keeps the gradient of the normaliser alive at init (abs does not).
    """

    cites: ClassVar[str] = "Prefix-Tuning+, arXiv:2506.13674, eq. 7; NTK-Attention, arXiv:2406.14036"
    equation: ClassVar[str] = "n = φ(q)ᵀ M, m = φ(q)ᵀ softplus(ζ)"
    learning_rate: ClassVar[float] = 3e-3
    learning_rate_inside: ClassVar[float | None] = 3e-2
    kind: Literal["matrix"] = "matrix"
    form: Literal["full", "low_rank", "diagonal"] = "full"
    rank: Annotated[int, Field(ge=1), Domain(1, 64, log=True)] | None = None
    per: Per = "query_head"
    init: Init = Field(default_factory=lambda: {"kind": "zeros"})  # type: ignore[assignment]

    @model_validator(mode="after")
    def _rank_goes_with_low_rank(self) -> Matrix:
        if (self.form == "low_rank") != (self.rank is not None):
            raise ValueError("'rank' is given with form 'low_rank', and only then")
        return self

    def feature_map_use(self) -> Literal["required", "forbidden"]:
        return "required"

    def mass(self) -> Mass:
        return "positive_map"

    def normalizers(self) -> tuple[Normalizer, ...]:
        return ("none", "sum")

    def zero_read_at_init(self) -> bool:
        return self.init.is_zero()

    def looks_at(self) -> tuple[Looked, ...]:
        return ()

    def written(self, query: str, phi: Callable[[str], str]) -> tuple[str, str]:
        q = phi(query)
        reads = {"full": f"{q}ᵀ M", "low_rank": f"{q}ᵀ A B", "diagonal": f"{q} ⊙ m"}
        return reads[self.form], f"{q}ᵀ z"

    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> nn.Module:
        assert feature_map is not None
        again = not feature_map.has_parameters() and not feature_map.random
        return MatrixMemory(self, shape, feature_map.out_width(shape.source_width), needs_mass, again)


class MatrixMemory(MemoryModule):
    """M (G, w, dv), or A (G, w, r) and B (G, r, dv), or its diagonal (G, w); with a mass, zeta (G, w).

    again: the map is cheap, and may be computed again in the backward pass instead of being kept. short: the read is
    phi(q)^T M or phi(q)^T A B of a map without parameters, of heads in their order, and nothing else. massed: with a
    mass, phi(q)^T M likewise.
    """

    def __init__(self, spec: Matrix, shape: SiteShape, width: int, needs_mass: bool, again: bool) -> None:
        super().__init__()
        self.maps = again and spec.form != "diagonal"
        self.grouping = Grouping(shape, spec.per)
        self.form = spec.form
        groups = shape.groups(spec.per)
        if spec.form == "full":
            self.matrix = nn.Parameter(torch.empty(groups, width, shape.value_width))
        elif spec.form == "diagonal":
            if width != shape.value_width:
                raise HostError(
                    f"memory.form 'diagonal' needs phi as wide as the value: {width} is not {shape.value_width}"
                )
            self.matrix = nn.Parameter(torch.empty(groups, width))
        else:
            assert spec.rank is not None
            self.down = nn.Parameter(torch.randn(groups, width, spec.rank) * spec.rank**-0.5)
            self.matrix = nn.Parameter(torch.empty(groups, spec.rank, shape.value_width))
        spec.init.fill_(self.matrix.data)
        self.zeta = nn.Parameter(torch.zeros(groups, width)) if needs_mass else None
        self.short = self.maps and not needs_mass and self.grouping.order is None
        self.massed = self.maps and needs_mass and self.grouping.order is None and spec.form == "full"

    def factors(self) -> tuple[Tensor, ...]:
        """M, or A and B."""
        owned: Any = self._parameters
        return (owned["matrix"],) if self.form == "full" else (owned["down"], owned["matrix"])

    def with_mass(self) -> tuple[Tensor, Tensor]:
        """M and z (G, w, 1) of one that is `massed`."""
        first, z = self._weights()
        return first, z

    def forward(self, x: Tensor, phi: Phi | None, capture: Capture) -> Read:
        if self.maps:
            assert phi is not None
            products: Sequence[Tensor] = mapped(x, self._weights(), phi, self.grouping)
        elif self.form == "diagonal":
            products = [x * self.matrix[:, None], *(grouped(x, w) for w in self._weights()[1:])]
        else:
            products = [grouped(x, weight) for weight in self._weights()]
        return self._read(*products)

    def _weights(self) -> list[Tensor]:
        """What features are multiplied with: M or A, and z of the mass."""
        first = self.down if self.form == "low_rank" else self.matrix
        return [first] if self.zeta is None else [first, functional.softplus(self.zeta)[..., None]]

    def _read(self, n: Tensor, m: Tensor | None = None) -> Read:
        if self.form == "low_rank":
            n = grouped(n, self.matrix)
        if m is None:
            return Read(n)
        return Read(n, m[..., 0], torch.zeros_like(m[..., 0]))

"""Independent normal entries."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import InitSpec


class Normal(InitSpec):
    """N(0, std^2)."""

    equation: ClassVar[str] = "N(0, std²)"
    kind: Literal["normal"] = "normal"
    std: Annotated[float, Field(ge=0), Domain(1e-3, 1.0, log=True)] = 0.02

    def is_zero(self) -> bool:
        return self.std == 0

    def fill_(self, tensor: Tensor) -> None:
        nn.init.normal_(tensor, std=self.std)

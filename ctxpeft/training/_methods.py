"""What is trained: a variant, or one of the baselines that need no adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

import ctxpeft
from ctxpeft.shipped import variant_path
from ctxpeft.spec.variant import Variant
from ctxpeft.training._baselines import BASELINES

BASELINE_RATES = {
    "full": 3e-3 / 27
}  # what tuning from 3e-3 came to on a model of 3M parameters (docs/evidence)
HEAD_RATE = 3e-3  # of a baseline that trains a new head and nothing else
VariantLike = str | os.PathLike[str] | Mapping[str, Any] | Variant


@dataclass(frozen=True)
class Method:
    """A variant, or a baseline by name (`variant` is then None)."""

    name: str
    variant: Variant | None

    def usual_rate(self) -> float:
        """The learning rate to begin with when none is given: `Variant.usual_rate`, or the baseline's."""
        return self.variant.usual_rate() if self.variant else BASELINE_RATES.get(self.name, HEAD_RATE)

    def fingerprint(self) -> str:
        """The variant's fingerprint; a baseline's name."""
        return self.variant.fingerprint() if self.variant else f"baseline:{self.name}"

    def described(self) -> dict[str, Any]:
        """The variant as plain data with every default, or the baseline's name."""
        return self.variant.model_dump(mode="json") if self.variant else {"baseline": self.name}


def load_method(source: VariantLike | Method) -> Method:
    """`none`, `full`, `probe`, or whatever `ctxpeft.load_variant` takes.

    Raises:
        SpecError: see `load_variant`.
    """
    if isinstance(source, Method):
        return source
    if isinstance(source, str) and source in BASELINES:
        return Method(source, None)
    if isinstance(source, str):
        variant_path(source, BASELINES)
    variant = ctxpeft.load_variant(source)
    return Method(variant.name, variant)


class FullFineTuning:
    """Trains the base itself; `detach` puts every value back, bit for bit."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before: dict[str, Tensor] = {n: p.detach().clone() for n, p in model.named_parameters()}
        self._flags = {n: p.requires_grad for n, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(True)

    def num_parameters(self, kind: Literal["trainable", "deployed"] = "trainable") -> int:
        """All of them."""
        return sum(p.numel() for p in self.model.parameters())

    def save(self, directory: str | os.PathLike[str]) -> None:
        """The whole model, as transformers saves it."""
        self.model.save_pretrained(directory)  # type: ignore[operator]

    def detach(self) -> None:
        """Restore values and flags."""
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(self._before[name])
            parameter.requires_grad_(self._flags[name])
            parameter.grad = None


class Untouched:
    """The frozen base: nothing of it is trained or saved."""

    def __init__(self, model: nn.Module) -> None:
        self._flags = [(p, p.requires_grad) for p in model.parameters()]
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)

    def num_parameters(self, kind: Literal["trainable", "deployed"] = "trainable") -> int:
        """None."""
        return 0

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Nothing is written."""

    def detach(self) -> None:
        """Restore the flags."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)


def attach_method(model: nn.Module, method: Method, seed: int) -> Any:
    """A handle with `num_parameters`, `save` and `detach`."""
    if method.variant is not None:
        return ctxpeft.attach(model, method.variant, seed=seed)
    return FullFineTuning(model) if method.name == "full" else Untouched(model)


def count_parameters(model: nn.Module, method: Method) -> tuple[int, int]:
    """Trainable and deployed parameters of `method` on `model`, which is left as it was."""
    handle = attach_method(model, method, seed=0)
    try:
        return handle.num_parameters(), handle.num_parameters("deployed")
    finally:
        handle.detach()

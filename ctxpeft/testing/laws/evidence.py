"""What a law has seen: the largest error against what is allowed, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxpeft.errors import LawError

All = slice(None)


@dataclass(frozen=True)
class Bound:
    """What two results may differ by: |a - b| <= absolute + relative |b|, entry by entry."""

    absolute: float
    relative: float = 0.0

    def times(self, factor: float) -> Bound:
        """A bound that many times as wide."""
        return Bound(self.absolute * factor, self.relative * factor)


EXACT = Bound(0.0)
SAME_KERNEL: dict[torch.dtype, Bound] = {
    torch.float64: Bound(1e-12, 1e-12),
    torch.float32: Bound(1e-5, 1e-5),
    torch.float16: Bound(2e-3, 2e-3),
    torch.bfloat16: Bound(1.6e-2, 1.6e-2),
}
OTHER_KERNEL: dict[torch.dtype, Bound] = {
    torch.float64: Bound(1e-9, 1e-9),
    torch.float32: Bound(2e-4, 1e-4),
    torch.float16: Bound(4e-3, 4e-3),
    torch.bfloat16: Bound(3.2e-2, 3.2e-2),
}


@dataclass
class Run:
    """One forward pass: logits (B, T, V) and the residual stream after each layer, (B, T, D) each."""

    logits: Tensor
    hidden: Sequence[Tensor] = ()

    def at(self, rows: slice | Sequence[int] = All, tokens: slice = All) -> Run:
        """Some rows and tokens of it."""
        return Run(self.logits[rows, tokens], [h[rows, tokens] for h in self.hidden])


class Evidence:
    """Collects the comparisons of one law at one size.

    floor: an error that is always allowed, as the bare model shows it. scaled: bounds are against the largest entry
    (at least 1) instead of each entry, for models whose activations differ by orders of magnitude. strict: a broken
    bound raises LawError; otherwise it is only noted.
    """

    def __init__(self, floor: float = 0.0, scaled: bool = False, strict: bool = True) -> None:
        self.error = 0.0
        self.allowed = 0.0
        self.compared = False
        self.worst = -1.0
        self.floor, self.scaled, self.strict = floor, scaled, strict

    def exact(self, got: Run, want: Run, what: str = "") -> None:
        """The two passes agree bit for bit."""
        self._compare(got.logits, want.logits, EXACT, what, (got, want))

    def close(self, got: Run, want: Run, bound: Bound, what: str = "") -> None:
        """The two passes agree within a bound."""
        self._compare(got.logits, want.logits, bound, what, (got, want))

    def tensors(self, got: Tensor, want: Tensor, bound: Bound, what: str) -> None:
        """The two tensors agree within a bound."""
        self._compare(got, want, bound, what, None)

    def _compare(
        self, got: Tensor, want: Tensor, bound: Bound, what: str, runs: tuple[Run, Run] | None
    ) -> None:
        if got.shape != want.shape:
            raise LawError(f"{what or 'outputs'}: shapes {tuple(got.shape)} and {tuple(want.shape)} differ")
        a, b = got.detach().double(), want.detach().double()
        error = (a - b).abs()
        error[(a == b) | (torch.isnan(a) & torch.isnan(b))] = 0.0
        error = torch.nan_to_num(error, nan=torch.inf)
        size = b.abs().nan_to_num(0.0, 0.0, 0.0)
        allowed = bound.absolute + bound.relative * size + self.floor
        if self.scaled and size.numel():
            allowed = allowed.maximum((bound.absolute + bound.relative) * size.max().clamp_min(1.0))
        excess = error / allowed.clamp_min(torch.finfo(torch.float64).tiny)
        self.compared = True
        if not error.numel():
            return
        index = int(excess.argmax())
        if float(excess.flatten()[index]) > self.worst:
            self.worst = float(excess.flatten()[index])
            self.error, self.allowed = float(error.flatten()[index]), float(allowed.flatten()[index])
        if bool((error > allowed).any()) and self.strict:
            raise LawError(_where(error, allowed, index, what, runs))


def _where(error: Tensor, allowed: Tensor, index: int, what: str, runs: tuple[Run, Run] | None) -> str:
    found, limit = float(error.flatten()[index]), float(allowed.flatten()[index])
    text = f"{what + ': ' if what else ''}|Δ| = {found:.2g} > {limit:.2g}"
    if runs is None or error.ndim < 3:
        return text
    broken = (error > allowed).flatten(2).any(2)
    row, token = (int(i) for i in broken.nonzero()[0])
    text += f" at token {token}" if error.shape[0] == 1 else f" at row {row}, token {token}"
    layer = _first_layer(
        runs[0].at([row]), runs[1].at([row]), limit / max(1.0, float(runs[1].logits.abs().max()))
    )
    return text if layer is None else f"{text}, first seen after layer {layer}"


def _first_layer(got: Run, want: Run, relative: float) -> int | None:
    """The first layer after which the residual streams differ by more than `relative` of their size."""
    for layer, (a, b) in enumerate(zip(got.hidden, want.hidden, strict=True)):
        error = float((a.double() - b.double()).abs().max())
        if not error <= relative * float(b.double().abs().max()):
            return layer
    return None

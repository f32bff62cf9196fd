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
    torch.float16: Bound(2e-2, 1e-2),
    torch.bfloat16: Bound(1e-1, 5e-2),
}
OTHER_KERNEL: dict[torch.dtype, Bound] = {
    torch.float64: Bound(1e-9, 1e-9),
    torch.float32: Bound(2e-4, 1e-4),
    torch.float16: Bound(4e-2, 2e-2),
    torch.bfloat16: Bound(2e-1, 1e-1),
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
    """Collects the comparisons of one law at one size. `widen` allows that many times the error of the bare model."""

    def __init__(self, widen: float = 0.0) -> None:
        self.error = 0.0
        self.allowed = 0.0
        self.compared = False
        self.worst = -1.0
        self.floor = widen
        self.strict = True

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
        allowed = bound.absolute + bound.relative * b.abs().nan_to_num(0.0, 0.0, 0.0) + self.floor
        excess = error / allowed.clamp_min(torch.finfo(torch.float64).tiny)
        self.compared = True
        if not error.numel():
            return
        index = int(excess.argmax())
        if float(excess.flatten()[index]) > self.worst:
            self.worst = float(excess.flatten()[index])
            self.error, self.allowed = float(error.flatten()[index]), float(allowed.flatten()[index])
        if bool((error > allowed).any()) and self.strict:
            raise LawError(_where(error, allowed, index, what, bound, runs))


def _where(
    error: Tensor, allowed: Tensor, index: int, what: str, bound: Bound, runs: tuple[Run, Run] | None
) -> str:
    found, limit = float(error.flatten()[index]), float(allowed.flatten()[index])
    text = f"{what + ': ' if what else ''}|Δ| = {found:.2g} > {limit:.2g}"
    if runs is None or error.ndim < 3:
        return text
    broken = (error > allowed).flatten(2).any(2)
    row, token = (int(i) for i in broken.nonzero()[0])
    text += f" at token {token}" if error.shape[0] == 1 else f" at row {row}, token {token}"
    layer = _first_layer(runs[0].at([row]), runs[1].at([row]), bound)
    return text if layer is None else f"{text}, first seen after layer {layer}"


def _first_layer(got: Run, want: Run, bound: Bound) -> int | None:
    for layer, (a, b) in enumerate(zip(got.hidden, want.hidden, strict=True)):
        error = (a.double() - b.double()).abs()
        if not bool((error <= bound.absolute + bound.relative * b.double().abs()).all()):
            return layer
    return None

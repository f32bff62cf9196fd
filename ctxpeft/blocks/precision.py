"""Modules whose parameters stay in fp32 whatever the host is cast to, and computation that autocast leaves alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


class FullPrecision(nn.Module):
    """Moves follow the host; casts below fp32 (`.half()`, `.to(torch.bfloat16)`) do not."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FullPrecision:
        def keep_precision(t: Tensor) -> Tensor:
            moved = fn(t)
            lowered = moved.is_floating_point() and torch.finfo(moved.dtype).bits < 32
            return t.to(moved.device) if lowered else moved

        super()._apply(keep_precision, recurse)  # type: ignore[no-untyped-call]
        return self


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for tensors of a device; the meta device has none."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside the block autocast is off. Entering it costs something only where it is on."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else contextlib.nullcontext()

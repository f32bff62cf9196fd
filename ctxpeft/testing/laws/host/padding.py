"""Padding is not content, on either side."""

from __future__ import annotations

from typing import Any

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size

_ASKED: dict[str, Any] = {"least": Size(1, 1, 1), "most": Size(2, 9, 3), "base": True, "peft": True}


@host_law(equation="logits(pad … pad t₁ … t_n) = logits(t₁ … t_n)", source="the design", **_ASKED)
def left_padding(host: Host, size: Size) -> None:
    """Padding on the left, masked and with positions that skip it, changes no output."""
    _compare(host, size, "left", slice(size.padded, None))


@host_law(equation="logits(t₁ … t_n pad … pad)_{≤ n} = logits(t₁ … t_n)", source="the design", **_ASKED)
def right_padding(host: Host, size: Size) -> None:
    """Padding on the right, masked, changes no output before it."""
    _compare(host, size, "right", slice(None, size.tokens))


def _compare(host: Host, size: Size, side: str, real: slice) -> None:
    batch = host.batch(*size[:2])
    with host.adapted():
        alone, padded = host.run(batch), host.run(batch.padded(size.padded, side))
    host.evidence.close(padded.at(tokens=real), alone, host.other_kernel)

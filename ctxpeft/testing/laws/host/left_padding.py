"""Padding is not content."""

from __future__ import annotations

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="logits(pad … pad t₁ … t_n) = logits(t₁ … t_n)",
    source="the design",
    least=Size(1, 1, 1),
    most=Size(2, 9, 3),
    base=True,
    peft=True,
)
def left_padding(host: Host, size: Size) -> None:
    """Padding on the left, masked and with positions that skip it, changes no output."""
    batch = host.batch(*size[:2])
    with host.adapted():
        alone, padded = host.run(batch), host.run(batch.padded(size.padded, "left"))
    host.evidence.close(padded.at(tokens=slice(size.padded, None)), alone, host.other_kernel)

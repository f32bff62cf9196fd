"""Padding is not content, on the other side."""

from __future__ import annotations

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="logits(t₁ … t_n pad … pad)_{≤ n} = logits(t₁ … t_n)",
    source="the design",
    least=Size(1, 1, 1),
    most=Size(2, 9, 3),
    base=True,
    peft=True,
)
def right_padding(host: Host, size: Size) -> None:
    """Padding on the right, masked, changes no output before it."""
    batch = host.batch(*size[:2])
    with host.adapted():
        alone, padded = host.run(batch), host.run(batch.padded(size.padded, "right"))
    host.evidence.close(padded.at(tokens=slice(None, size.tokens)), alone, host.other_kernel)

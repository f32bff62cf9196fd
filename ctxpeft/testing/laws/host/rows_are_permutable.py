"""Rows do not meet."""

from __future__ import annotations

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="logits(x_π) = logits(x)_π",
    source="the design",
    least=Size(2, 1),
    most=Size(3, 9, 2),
    base=True,
    peft=True,
)
def rows_are_permutable(host: Host, size: Size) -> None:
    """Permuting the rows of a batch, one of them padded, permutes the outputs."""
    batch = host.batch(size.batch, size.tokens + size.padded).hidden(size.padded)
    order = [*range(1, size.batch), 0]
    with host.adapted():
        together, turned = host.run(batch), host.run(batch.rows(order))
    real = slice(size.padded, None)
    host.evidence.close(turned.at(tokens=real), together.at(order, real), host.same_kernel)

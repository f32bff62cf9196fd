"""The backend is not part of the method."""

from __future__ import annotations

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="logits_eager = logits_sdpa",
    source="the design",
    least=Size(1, 1, 1),
    most=Size(2, 9, 3),
    base=True,
)
def eager_is_sdpa(host: Host, size: Size) -> None:
    """Eager and sdpa attention give the same, with and without a padded row; content weights may be asked for."""
    whole = host.batch(size.batch, size.tokens + size.padded)
    with host.adapted():
        for batch, real in ((whole, slice(None)), (whole.hidden(size.padded), slice(size.padded, None))):
            seen = {}
            for backend, options in (("sdpa", {}), ("eager", {"output_attentions": True})):
                with host.attention(backend):
                    seen[backend] = host.run(batch, **options).at(tokens=real)
            host.evidence.close(seen["eager"], seen["sdpa"], host.other_kernel)

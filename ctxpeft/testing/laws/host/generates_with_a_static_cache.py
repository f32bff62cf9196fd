"""Decoding with the other cache."""

from __future__ import annotations

from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.host.generates_as_teacher_forced import decode
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="generate(x; static cache) = argmax of full passes, logits included",
    source="the design",
    most=Size(2, 3, 2),
    base=True,
    peft=True,
)
def generates_with_a_static_cache(host: Host, size: Size) -> None:
    """Greedy decoding with the static cache, one row padded, equals full passes without a cache."""
    decode(host, size, cache_implementation="static")

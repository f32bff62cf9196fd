"""One adapter a row."""

from __future__ import annotations

import contextlib

import ctxpeft
from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="route(a₁ … a_B)(x)_b = a_b(x_b)",
    source="the design; S-LoRA, arXiv:2311.03285, for prefixes and memories",
    least=Size(4, 1),
    most=Size(4, 9),
    base=True,
)
def rows_are_separate_batches(host: Host, size: Size) -> None:
    """A batch of mixed rows, some through no adapter, equals each adapter alone on its own rows."""
    batch = host.batch(*size[:2])
    names = ["a", None, "b", "a"]
    with contextlib.ExitStack() as stack:
        if not host.bare:
            stack.enter_context(host.attached("a", seed=0))
            stack.enter_context(host.attached("b", seed=1))
        with contextlib.nullcontext() if host.bare else ctxpeft.route(host.model, names):
            together = host.run(batch)
        for index, name in enumerate(names):
            if not host.bare:
                ctxpeft.activate(host.model, [] if name is None else [name])
            alone = host.run(batch.rows([index]))
            row = together.at([index])
            host.evidence.close(row, alone, host.same_kernel, f"row {index} ({name or 'base'})")

"""An adapter survives its file."""

from __future__ import annotations

import tempfile

import ctxpeft
from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(equation="load(save(adapter)) = adapter", source="the design", peft=True)
def saves_and_loads(host: Host, size: Size) -> None:
    """A saved adapter gives the same outputs bit for bit when it is loaded, frozen unless asked otherwise."""
    batch = host.batch(*size[:2])
    with tempfile.TemporaryDirectory() as folder:
        with host.attached() as handle:
            before = host.run(batch)
            handle.save(folder)
        for trainable in (False, True):
            loaded = ctxpeft.load(host.model, folder, name="loaded", trainable=trainable)
            try:
                host.evidence.exact(host.run(batch), before, "loaded")
                require(loaded.variant == host.variant, "the loaded variant is another one")
                flags = {p.requires_grad for p in loaded.parameters()}
                require(flags <= {trainable}, f"loaded with trainable={trainable}, parameters say {flags}")
            finally:
                loaded.detach()

"""ctxpeft: construct, compare and search context-based PEFT methods.

variant = ctxpeft.load_variant("prefix-tuning-plus")
handle = ctxpeft.attach(model, variant)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxpeft.lazy import lazily

if TYPE_CHECKING:
    from ctxpeft.adapters.load import load
    from ctxpeft.errors import AdapterError, CtxpeftError, DataError, DiskError, HostError, SpecError
    from ctxpeft.hosts.attach import attach
    from ctxpeft.hosts.handle import Handle
    from ctxpeft.hosts.passes import segments
    from ctxpeft.hosts.routing import activate, route
    from ctxpeft.spec.load import load_variant
    from ctxpeft.spec.variant import Variant

__version__ = "0.1.0"

_WHERE = {
    "AdapterError": "errors",
    "CtxpeftError": "errors",
    "DataError": "errors",
    "DiskError": "errors",
    "Handle": "hosts.handle",
    "HostError": "errors",
    "SpecError": "errors",
    "Variant": "spec.variant",
    "activate": "hosts.routing",
    "attach": "hosts.attach",
    "load": "adapters.load",
    "load_variant": "spec.load",
    "route": "hosts.routing",
    "segments": "hosts.passes",
}
__all__ = [
    "AdapterError",
    "CtxpeftError",
    "DataError",
    "DiskError",
    "Handle",
    "HostError",
    "SpecError",
    "Variant",
    "activate",
    "attach",
    "load",
    "load_variant",
    "route",
    "segments",
]


__getattr__ = lazily(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

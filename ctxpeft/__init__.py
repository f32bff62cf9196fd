"""ctxpeft: construct, compare and search context-based PEFT methods.

variant = ctxpeft.load_variant("prefix-tuning-plus")
handle = ctxpeft.attach(model, variant)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    "AdapterError": "ctxpeft.errors",
    "CtxpeftError": "ctxpeft.errors",
    "DataError": "ctxpeft.errors",
    "DiskError": "ctxpeft.errors",
    "Handle": "ctxpeft.hosts.handle",
    "HostError": "ctxpeft.errors",
    "SpecError": "ctxpeft.errors",
    "Variant": "ctxpeft.spec.variant",
    "activate": "ctxpeft.hosts.routing",
    "attach": "ctxpeft.hosts.attach",
    "load": "ctxpeft.adapters.load",
    "load_variant": "ctxpeft.spec.load",
    "route": "ctxpeft.hosts.routing",
    "segments": "ctxpeft.hosts.passes",
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


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that the command line starts without torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'ctxpeft' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

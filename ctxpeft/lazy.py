"""Public names of a package that are imported on first use, so that what needs no torch starts without it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for the package: `where` says of every public name in which of its modules it is.

    What it returns raises AttributeError for any other name.
    """

    def found(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    return found

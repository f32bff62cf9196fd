"""Optional packages: asked for early, with the extra that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from ctxpeft.errors import CtxpeftError


def require(package: str, extra: str, purpose: str) -> None:
    """Raises CtxpeftError if an optional package is missing, naming the extra that brings it."""
    if find_spec(package) is None:
        raise CtxpeftError(f"{purpose} needs {package}; install the extra: pip install 'ctxpeft[{extra}]'")

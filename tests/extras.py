"""Tests that need an optional package."""

from importlib.util import find_spec

import pytest


def needs(package: str, extra: str) -> None:
    """Skip the whole test file, naming the extra, where an optional package is not installed."""
    if find_spec(package) is None:
        pytest.skip(
            f"needs {package}: pip install 'ctxpeft[{extra}]' -c constraints.txt", allow_module_level=True
        )

"""Variants that a space names."""

from __future__ import annotations

from pathlib import Path

from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant


def named_variant(name: str, folder: Path) -> Variant:
    """A variant by shipped name, or by a path relative to the space's folder or to the working directory.

    Raises SpecError in one sentence.
    """
    beside = folder / name
    return load_variant(beside if name.endswith((".yaml", ".yml")) and beside.is_file() else name)

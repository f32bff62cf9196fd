"""The blocks a variant is made of."""

from __future__ import annotations

from typing import Any

from ctxpeft.spec.base import BlockSpec
from ctxpeft.spec.variant import Variant


def blocks_of(variant: Variant) -> list[BlockSpec]:
    """One block of every kind in a variant, those inside others too, in their order."""
    found: dict[tuple[str, str], BlockSpec] = {}

    def visit(value: Any) -> None:
        if isinstance(value, BlockSpec):
            found[value.family, value.kind] = value
        if isinstance(value, list):
            for item in value:
                visit(item)
        elif hasattr(type(value), "model_fields"):
            for field in type(value).model_fields:
                visit(getattr(value, field))

    visit(variant.modules)
    return list(found.values())

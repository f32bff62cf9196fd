"""The JSON schema of a variant file, for editors: every installed kind, with the docstring of its class."""

from __future__ import annotations

from typing import Any

from ctxpeft.spec.variant import Variant

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def variant_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a variant. What it accepts may still be an illegal combination."""
    return {"$schema": DIALECT, **Variant.model_json_schema()}

"""The files of a saved adapter."""

from __future__ import annotations

VARIANT = "variant.yaml"
WEIGHTS = "adapter.safetensors"
CARD = "README.md"
FORMAT = "ctxpeft-adapter-1"

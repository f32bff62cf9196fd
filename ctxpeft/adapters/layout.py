"""The files of a saved adapter, ours and HF PEFT's."""

from __future__ import annotations

VARIANT = "variant.yaml"
WEIGHTS = "adapter.safetensors"
CARD = "README.md"
FORMAT = "ctxpeft-adapter-1"
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_PICKLE = "adapter_model.bin"

"""The files of a saved adapter, ours and HF PEFT's."""

from __future__ import annotations

VARIANT = "variant.yaml"
NEXT = ".variant.yaml.next"  # the spec of a save under way, in force as soon as the weights are its own
WEIGHTS = "adapter.safetensors"
CARD = "README.md"
FORMAT = "ctxpeft-adapter-1"
CHECKPOINT = "trainer_state.json"  # in every checkpoint of transformers' Trainer
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_PICKLE = "adapter_model.bin"

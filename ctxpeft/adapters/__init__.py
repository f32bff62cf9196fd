"""Adapters on disk: safetensors and the spec, never code."""

"""What ships inside the package: a small model, task snapshots with their hashes, protocols of published sets."""

from __future__ import annotations

from ctxpeft.data._shipped import (
    mini_model_path,
    protocol_names,
    protocol_path,
    task_names,
    task_path,
    verify_snapshot,
)

__all__ = [
    "mini_model_path",
    "protocol_names",
    "protocol_path",
    "task_names",
    "task_path",
    "verify_snapshot",
]

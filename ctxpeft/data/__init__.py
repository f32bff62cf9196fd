"""What ships inside the package: a small default model, and task snapshots with their hashes."""

from __future__ import annotations

from ctxpeft.data._shipped import mini_model_path, task_names, task_path, verify_snapshot

__all__ = ["mini_model_path", "task_names", "task_path", "verify_snapshot"]

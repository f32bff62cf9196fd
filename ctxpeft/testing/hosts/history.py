"""Which families' recorded expectations changed, by git."""

from __future__ import annotations

import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

from ctxpeft.testing.hosts.report import RECORD, expected
from ctxpeft.testing.hosts.run import Family


def changed_since(revision: str) -> set[Family]:
    """The families whose recorded verdicts are not what they were at a revision; all where there was no record.

    Raises CalledProcessError outside a git repository.
    """
    path = _record()
    root = Path(_git("rev-parse", "--show-toplevel"))
    try:
        before: dict[str, Any] = json.loads(_git("show", f"{revision}:{path.relative_to(root)}"))
    except subprocess.CalledProcessError:
        before = {}
    keys = {k for k, entry in expected().items() if _verdicts(before.get(k, {})) != _verdicts(entry)}
    return {(mapping, kind) for mapping, _, kind in (k.partition("/") for k in keys)}


def changed_last() -> set[Family]:
    """The families that the last change of the record was about, one that is not committed yet included; none where
    the record is new, or git does not tell."""
    try:
        commits = _git("log", "-2", "--format=%H", "--", str(_record())).split()
        open_change = _git("status", "--porcelain", "--", str(_record()))
    except (subprocess.CalledProcessError, FileNotFoundError):
        return set()
    if open_change:
        return changed_since("HEAD") if commits else set()
    return changed_since(commits[1]) if len(commits) == 2 else set()


def _verdicts(entry: dict[str, str]) -> dict[str, str]:
    """What is recorded of our variants; HF PEFT's verdict is not ours to keep."""
    return {name: state for name, state in entry.items() if name != "peft"}


def _record() -> Path:
    return Path(str(files(__package__).joinpath(RECORD))).resolve()


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=_record().parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()

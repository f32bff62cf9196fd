"""Where the shipped model and tasks lie, and whether a task is still what was shipped."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

from ctxpeft.errors import DataError, did_you_mean

MANIFEST = "manifest.json"


def _folder() -> Path:
    return Path(str(resources.files("ctxpeft.data")))


def mini_model_path() -> Path:
    """The folder of ctxpeft-mini, for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Example:
        >>> from ctxpeft.data import mini_model_path
        >>> (mini_model_path() / "config.json").is_file()
        True
    """
    return _folder() / "ctxpeft-mini"


def task_names() -> list[str]:
    """Names of the shipped task snapshots, sorted.

    Example:
        >>> from ctxpeft.data import task_names
        >>> "docstring-area" in task_names()
        True
    """
    return sorted(manifest.parent.name for manifest in (_folder() / "tasks").glob(f"*/{MANIFEST}"))


def task_path(name: str) -> Path:
    """The folder of a shipped task snapshot: `train.jsonl`, `validation.jsonl`, `test.jsonl`, `ood.jsonl`, manifest.

    Raises:
        DataError: there is no such task.
    """
    if name not in task_names():
        raise DataError(f"there is no shipped task {name!r}{did_you_mean(name, task_names())}")
    return _folder() / "tasks" / name


def protocol_names() -> list[str]:
    """Names of the shipped protocols, sorted: how a published set is asked and judged, without its data.

    Example:
        >>> from ctxpeft.data import protocol_names
        >>> "webnlg" in protocol_names()
        True
    """
    return sorted(file.stem for file in (_folder() / "protocols").glob("*.yaml"))


def protocol_path(name: str) -> Path:
    """The task file of a shipped protocol.

    Raises:
        DataError: there is no such protocol.
    """
    if name not in protocol_names():
        raise DataError(f"there is no shipped protocol {name!r}{did_you_mean(name, protocol_names())}")
    return _folder() / "protocols" / f"{name}.yaml"


def verify_snapshot(name: str) -> None:
    """Compare every file of a shipped task with the SHA-256 in its manifest.

    Raises:
        DataError: there is no such task, a file is missing, or a file is not the one that was shipped.
    """
    verify_folder(task_path(name))


def verify_folder(folder: Path) -> None:
    """Compare the files a folder's `manifest.json` lists under `files` with their `sha256`.

    Raises:
        DataError: the manifest or a file is missing, or a file differs.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder.name} has no readable {MANIFEST}: {error}") from error
    for file, entry in manifest["files"].items():
        path = folder / file
        if not path.is_file():
            raise DataError(f"{folder.name}/{file} is missing; install ctxpeft again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise DataError(
                f"{folder.name}/{file} is not the file that was shipped (SHA-256 differs); install ctxpeft again"
            )

"""The folder of a run: what may be in it, whether it fits, and from where to go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from ctxpeft import __version__
from ctxpeft.errors import CtxpeftError
from ctxpeft.files import write_text
from ctxpeft.folders import RUN, only_for
from ctxpeft.training._result import RESULT, RunResult

RESOLVED = "resolved.yaml"
COMPLETE = "complete"  # marks a checkpoint the Trainer finished writing
_OURS = ("metrics.jsonl", "environment.json", RESOLVED, RESULT)
_HASHES = {  # a hash of `resolved.yaml`: what of `about` it stands for, and what it says alone
    "variant.fingerprint": ("variant", "the spec of the variant changed"),
    "model.digest": ("model", "the weights of the model changed"),
    "task.digest": ("task", "the rows of the data or the prompt changed"),
}
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "safetensors", "numpy", "tokenizers")


def config_hash(resolved: Mapping[str, Any]) -> str:
    """SHA-256 of everything in `resolved` that decides the result (what is under `about` does not)."""
    decisive = {key: value for key, value in resolved.items() if key != "about"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


class InUseError(CtxpeftError):
    """Another process is in the folder of a run."""


class RunFolder:
    """A folder that holds one run.

    Args:
        path: the folder; made when the run starts.
        resolved: the whole configuration; `about` in it describes and does not decide.
    """

    def __init__(self, path: Path, resolved: dict[str, Any]) -> None:
        self.path = path.absolute()
        self.resolved = resolved
        self.hash = config_hash(resolved)
        self.checkpoints = self.path / "checkpoints"

    def finished(self) -> RunResult | None:
        """The result, if this very run is finished here."""
        if not (self.path / RESULT).is_file():
            return None
        result = RunResult.read(self.path)
        return result if result.config_hash == self.hash else None

    def check(self) -> None:
        """Refuse a folder that holds another configuration, or the results of another command.

        Raises:
            CtxpeftError: the difference that tells most is named, a hash only where nothing else differs.
        """
        only_for(RUN, self.path)
        written = self.path / RESOLVED
        if not written.is_file():
            return
        try:
            other = yaml.safe_load(written.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            other = None
        if not isinstance(other, dict) or config_hash(other) != self.hash:
            difference = _difference(other, json.loads(json.dumps(self.resolved, default=str)))
            raise CtxpeftError(
                f"{self.path} holds a run with another configuration ({difference}): choose another folder, or "
                "discard it with --fresh"
            )

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        for name in _OURS:
            (self.path / name).unlink(missing_ok=True)
        for predictions in self.path.glob("predictions-*.jsonl"):
            predictions.unlink()
        shutil.rmtree(self.path / "adapter", ignore_errors=True)
        self.drop_checkpoints()

    def open(self) -> None:
        """Write what is known before training."""
        self.path.mkdir(parents=True, exist_ok=True)
        plain = json.loads(json.dumps(self.resolved, default=str))
        write_text(self.path / RESOLVED, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        write_text(self.path / "environment.json", json.dumps(environment(), indent=1) + "\n")

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written completely; incomplete ones are removed."""
        found: list[tuple[int, Path]] = []
        for path in self.checkpoints.glob("checkpoint-*"):
            if (path / COMPLETE).is_file():
                found.append((int(path.name.rpartition("-")[2]), path))
            else:
                shutil.rmtree(path, ignore_errors=True)
        return max(found)[1] if found else None

    def drop_checkpoints(self) -> None:
        """Remove the Trainer's checkpoints."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder.

        Raises:
            InUseError: another process is in it.
            CtxpeftError: it is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise CtxpeftError(f"{self.path} is a file: expected a folder for the run")
        try:
            import fcntl
        except ImportError:  # a platform without advisory locks
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with lock.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InUseError(f"{self.path} is in use by another process") from None
            yield
            lock.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """Versions, platform and threads: what else a number may depend on."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "ctxpeft": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": versions,
    }


def _difference(old: Any, new: dict[str, Any]) -> str:
    """The difference that tells a reader most, as `training.seed: 0 there, 1 here`.

    Hashes decide and say nothing: what `about` tells of the variant, the model and the task stands in for them, and
    where it tells no difference either, the hash comes last, in words.
    """
    if not isinstance(old, dict):
        return f"{RESOLVED} is not that of a run"
    told: list[tuple[str, Any, Any]] = []
    hashes: list[str] = []
    for path, there, here in _leaves(old, new):
        if path not in _HASHES:
            told.append((path, there, here))
            continue
        section, words = _HASHES[path]
        known = list(_leaves(_about(old, section), _about(new, section), section))
        told = [*told, *known] if section == "task" else [*known, *told]
        hashes.append(words)
    if told:
        path, there, here = told[0]
        return f"{path}: {_short(there)} there, {_short(here)} here"
    return hashes[0] if hashes else f"{RESOLVED} was changed"


def _about(resolved: dict[str, Any], section: str) -> Any:
    """What describes a section: the task's files and prompt, the model's name, the variant by its name or its spec."""
    about = resolved.get("about")
    return about.get(section) if isinstance(about, dict) else None


def _leaves(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value that differs, `about` left out: its path, what is there and what is here."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            if path or key != "about":
                yield from _leaves(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (there, here) in enumerate(zip(old, new, strict=True)):
            yield from _leaves(there, here, f"{path}.{index}")
    elif old != new:
        yield path, old, new


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."

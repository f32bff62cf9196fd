"""Saves that are cut off: by SIGKILL at every step and at random moments, and by a disk that is full.

    python -m tests.reliability saves --kills 500

What was there before, or what was to be written; never half of one, never a mixture.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import ctxpeft
from ctxpeft.adapters.load import read_adapter
from ctxpeft.adapters.peft_folder import read_peft_folder
from ctxpeft.adapters.tensors import digest_of, open_tensors
from ctxpeft.errors import CtxpeftError
from ctxpeft.files import write_text
from ctxpeft.search.archive import read_archive
from ctxpeft.search.export import write_exports
from ctxpeft.tasks import Evaluation, Record
from ctxpeft.testing.tiny import perturb, tiny_model
from ctxpeft.training import HeldOut, RunResult
from ctxpeft.training._folder import RESULT, RunFolder
from tests.reliability.watch import writes

CHANGES = ("os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.truncate")
LORA = {"name": "lora", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}}
PREFIX = {"placement": "inside", "memory": {"kind": "slots", "count": 4, "position": "auto"}}
EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
LONG = "a line of a report\n" * 50_000


@dataclass(frozen=True)
class Target:
    """Something that is written over an older one: how, and how to tell what is there."""

    name: str
    old: Callable[[Path], None]
    new: Callable[[Path], None]
    state: Callable[[Path], Any]


def _handle(variant: Any, seed: int) -> Any:
    handle = ctxpeft.attach(tiny_model(), variant, seed=seed)
    perturb(handle)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.mul_(1 + seed)
    return handle


def _adapter(folder: Path) -> tuple[str, str]:
    """The spec and the values that `ctxpeft.load` would attach."""
    variant, file = read_adapter(folder / "adapter")
    return variant.fingerprint(), digest_of(file.read(file.shapes))


def _foreign(folder: Path) -> tuple[str, str]:
    """The configuration and the values that `ctxpeft.load` would import."""
    found = read_peft_folder(folder / "adapter")
    return str(found.number("num_virtual_tokens")), digest_of(found.file.read(found.file.shapes))


def _saved(variant: Any, seed: int) -> Callable[[Path], None]:
    handle = _handle(variant, seed)
    return lambda folder: handle.save(folder / "adapter")


def _exported(count: int, seed: int) -> Callable[[Path], None]:
    memory = {**PREFIX["memory"], "count": count}  # type: ignore[dict-item]
    handle = _handle({"name": "p", "modules": [{**PREFIX, "memory": memory}]}, seed)
    return lambda folder: handle.export(folder / "adapter")


def _written(text: str) -> Callable[[Path], None]:
    return lambda folder: write_text(folder / "report.md", text)


def _nothing(folder: Path) -> None:
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    (folder / "adapter").mkdir()


def _result() -> RunResult:
    """A run of eight examples, as `ctxpeft train` leaves it."""
    records = [Record(f"example-{i}", 1.0, 1.0, 0.5, 0.5) for i in range(8)]
    found = {"test": Evaluation("classification", "accuracy", True, {"accuracy": 1.0}, {}, records)}
    held = [HeldOut(4, 64, 1.5)]
    return RunResult("it", "0" * 64, 1e-3, 0, 4, 64, 1.0, 8, 8, 1.5, held, None, "0" * 16, found)


def _unfinished(folder: Path) -> None:
    for path in folder.glob("*.json*"):
        path.unlink()
    for name in ("weights", "optimizer", "state"):
        write_text(folder / "checkpoints" / "checkpoint-4" / name, "it")


def _finished(folder: Path) -> None:
    """The end of a run: its result, then its checkpoints are dropped."""
    _result().write(folder)
    RunFolder(folder, {}).drop_checkpoints()


def _found_result(folder: Path) -> Any:
    """The whole result, predictions too; none where `result.json` does not say that the run finished."""
    return RunResult.read(folder) if (folder / RESULT).exists() else None


def _study(name: str) -> Callable[[Path], None]:
    archive = cache(lambda: read_archive(EVIDENCE / "guide" / f"guide-{name}-0.json"))
    return lambda folder: write_exports(folder, archive())


def _found_study(folder: Path) -> str:
    """The study that `--from` would continue; every other file there is whole too."""
    if (folder / "best.yaml").exists():
        ctxpeft.load_variant(folder / "best.yaml")
    json.loads((folder / "study.json").read_text(encoding="utf-8"))  # half a file is not refused but a fault
    return read_archive(folder / "study.json").text()


def targets() -> list[Target]:
    """Every kind of thing that users lose if it is half written."""
    plus, prefix = "prefix-tuning-plus", "prefix-tuning"
    yaml = [ctxpeft.load_variant(name) for name in (plus, prefix)]
    return [
        Target("an adapter, other values of its spec", _saved(plus, 0), _saved(plus, 1), _adapter),
        Target("an adapter, another method", _saved(plus, 0), _saved(prefix, 1), _adapter),
        Target("an adapter into an empty folder", _nothing, _saved(prefix, 1), _adapter),
        Target("a LoRA of HF PEFT over another method", _saved(plus, 0), _saved(LORA, 1), _adapter),
        Target("an export to HF PEFT, other values", _exported(4, 0), _exported(4, 1), _foreign),
        Target("an export to HF PEFT, another size", _exported(4, 0), _exported(3, 1), _foreign),
        Target(
            "a variant file",
            lambda folder: _ignore(yaml[0].to_yaml(folder / "mine.yaml")),
            lambda folder: _ignore(yaml[1].to_yaml(folder / "mine.yaml")),
            lambda folder: ctxpeft.load_variant(folder / "mine.yaml").fingerprint(),
        ),
        Target(
            "a report of 950,000 bytes",
            _written("old\n" + LONG),
            _written("new\n" + LONG),
            lambda folder: (folder / "report.md").read_text(),
        ),
        Target("a finished run", _unfinished, _finished, _found_result),
        Target("a study and what is exported of it", _study("true"), _study("false"), _found_study),
    ]


def _ignore(_: Any) -> None:
    return None


@dataclass
class Tally:
    """What was found after each kill."""

    name: str
    steps: int = 0
    twice: int = 0
    kills: int = 0
    old: int = 0
    new: int = 0
    neither: int = 0
    half: int = 0


def cut(target: Target, folder: Path, kills: int, start: int = 0, twice: bool = True) -> Tally:
    """Kill the writer before each change it makes to the file system; from each state that this leaves, if `twice`,
    kill the next save before each of its own; then `kills` times at random moments, with what the last one left."""
    tally = Tally(target.name)
    wanted = {}
    for name, write in (("old", target.old), ("new", target.new)):
        write(folder)
        wanted[name] = _state(target, folder)
    assert wanted["old"] != wanted["new"]
    left: dict[tuple[Any, ...], int] = {}
    while _killed(target.old, target.new, folder, tally.steps):
        _count(tally, wanted, _state(target, folder))
        left.setdefault(_files(folder), tally.steps)
        tally.steps += 1
    for step in left.values() if twice else ():
        again = 0
        while _killed(target.old, target.new, folder, step) and _killed(None, target.old, folder, again):
            _count(tally, wanted, _state(target, folder))
            again += 1
        tally.twice += again
    chance, began = random.Random(start), time.perf_counter()
    target.new(folder)
    target.old(folder)
    cycle = time.perf_counter() - began
    for _ in range(kills):
        forked(lambda: _for_ever(target, folder), after=chance.random() * 2 * cycle)
        _count(tally, wanted, _state(target, folder))
    return tally


def _killed(
    first: Callable[[Path], None] | None, then: Callable[[Path], None], folder: Path, step: int
) -> bool:
    """Write one thing, then another that is killed at a step; False where it has no such step."""
    if first is not None:
        first(folder)
    return os.WIFSIGNALED(forked(lambda: until(step, lambda: then(folder))))


def _files(folder: Path) -> tuple[Any, ...]:
    """Everything that lies in a folder, except what is being written."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp"]
    return tuple(sorted((str(path), _contents(path)) for path in files))


def _contents(path: Path) -> str:
    """What a file says; safetensors writes its header in any order."""
    if path.suffix != ".safetensors":
        return path.read_text(encoding="utf-8")
    file = open_tensors(path)
    return str(sorted(file.metadata.items())) + digest_of(file.read(file.shapes))


def _count(tally: Tally, wanted: dict[str, Any], found: Any) -> None:
    tally.kills += 1
    kind = next((name for name, value in wanted.items() if value == found), None)
    if kind == "old":
        tally.old += 1
    elif kind == "new":
        tally.new += 1
    elif found is None:
        tally.neither += 1
    else:
        tally.half += 1


def _state(target: Target, folder: Path) -> Any:
    """What is there, or None where a sentence says that nothing is."""
    try:
        return target.state(folder)
    except CtxpeftError:
        return None


def until(step: int, write: Callable[[], None]) -> None:
    """Write, and die just before the given step."""
    count = 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal count
        if event in CHANGES or (event == "open" and writes(arguments)):
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    write()


def _for_ever(target: Target, folder: Path) -> None:
    while True:
        target.new(folder)
        target.old(folder)


def forked(act: Callable[[], None], after: float | None = None) -> int:
    """Do it in a copy of this process, killed `after` some seconds; how it ended."""
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(begun, b".")
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.read(ready, 1)
    os.close(ready)
    os.close(begun)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def full(target: Target, folder: Path, room: int) -> tuple[str, bool, list[str]]:
    """Write where files may have `room` bytes and no more: what is told, whether the old is still there, what is left
    lying about."""
    target.old(folder)
    before, files = _state(target, folder), sorted(folder.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        target.new(folder)
        told = ""
    except CtxpeftError as error:
        told = str(error)
    except OSError as error:
        told = f"OSError: {error.filename}: {error.strerror}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    left = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path not in files]
    return told, _state(target, folder) == before, left

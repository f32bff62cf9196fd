"""Saves that are cut off: by SIGKILL at every step and at random moments, and by a disk that is full.

    python -m tests.reliability saves --kills 500

What was there before, or what was to be written; never half of one, never a mixture.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import ctxpeft
from ctxpeft.adapters.tensors import digest_of
from ctxpeft.errors import CtxpeftError
from ctxpeft.files import write_text
from ctxpeft.testing.tiny import perturb, tiny_model

STEPS = ("open", "os.", "tempfile.", "shutil.")
LORA = {"name": "lora", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}}
PREFIX = {"placement": "inside", "memory": {"kind": "slots", "count": 4, "position": "auto"}}
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


def _adapter(folder: Path) -> str:
    """The values that load."""
    return digest_of(ctxpeft.load(tiny_model(), folder / "adapter").state_dict())


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


def targets() -> list[Target]:
    """Every kind of thing that users lose if it is half written."""
    plus, prefix = "prefix-tuning-plus", "prefix-tuning"
    yaml = [ctxpeft.load_variant(name) for name in (plus, prefix)]
    return [
        Target("an adapter, other values of its spec", _saved(plus, 0), _saved(plus, 1), _adapter),
        Target("an adapter, another method", _saved(plus, 0), _saved(prefix, 1), _adapter),
        Target("an adapter into an empty folder", _nothing, _saved(prefix, 1), _adapter),
        Target("a LoRA of HF PEFT over another method", _saved(plus, 0), _saved(LORA, 1), _adapter),
        Target("an export to HF PEFT, other values", _exported(4, 0), _exported(4, 1), _adapter),
        Target("an export to HF PEFT, another size", _exported(4, 0), _exported(3, 1), _adapter),
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
    ]


def _ignore(_: Any) -> None:
    return None


@dataclass
class Tally:
    """What was found after each kill."""

    name: str
    steps: int = 0
    kills: int = 0
    old: int = 0
    new: int = 0
    neither: int = 0
    half: int = 0


def cut(target: Target, folder: Path, kills: int, start: int = 0) -> Tally:
    """Kill the writer at each of its steps, then once more at any step of the next save, then `kills` times at random
    moments; the folder stays as it was left from one of these to the next."""
    tally = Tally(target.name)
    wanted = {}
    for name, write in (("old", target.old), ("new", target.new)):
        write(folder)
        wanted[name] = _state(target, folder)
    assert wanted["old"] != wanted["new"]
    while True:
        target.old(folder)
        status = _forked(lambda: _until(tally.steps, lambda: target.new(folder)))
        if not os.WIFSIGNALED(status):
            break
        tally.steps += 1
        _count(tally, wanted, _state(target, folder))
    chance = random.Random(start)
    for step in range(tally.steps):
        target.old(folder)
        _forked(lambda step=step: _until(step, lambda: target.new(folder)))  # type: ignore[misc]
        again = chance.randrange(tally.steps)
        _forked(lambda again=again: _until(again, lambda: target.old(folder)))  # type: ignore[misc]
        _count(tally, wanted, _state(target, folder))
    began = time.perf_counter()
    target.new(folder)
    target.old(folder)
    cycle = time.perf_counter() - began
    for _ in range(kills):
        _forked(lambda: _for_ever(target, folder), after=chance.random() * 2 * cycle)
        _count(tally, wanted, _state(target, folder))
    return tally


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


def _until(step: int, write: Callable[[], None]) -> None:
    """Write, and die just before the given step."""
    count = 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal count
        if event.startswith(STEPS) and event != "os.kill":
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    write()


def _for_ever(target: Target, folder: Path) -> None:
    while True:
        target.new(folder)
        target.old(folder)


def _forked(act: Callable[[], None], after: float | None = None) -> int:
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

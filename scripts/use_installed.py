"""Use ctxpeft as it is installed: what ships is found, the commands run, a short training ends. Imports nothing else.

python -I scripts/use_installed.py PREFIX   from an empty folder; PREFIX is where ctxpeft must come from
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import ctxpeft
from ctxpeft.cli import main
from ctxpeft.data import mini_model_path, protocol_names, task_names
from ctxpeft.shipped import shipped_file, shipped_folder, shipped_names


def command(*args: object) -> Any:
    """The result of a command with --json; it must succeed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*map(str, args), "--json"])
    if code:
        raise SystemExit(f"ctxpeft {' '.join(map(str, args))}: exit code {code}")
    return json.loads(printed.getvalue())["result"]


def expect(fact: bool, told: str) -> None:
    """Stop with a sentence where something is not so."""
    if not fact:
        raise SystemExit(f"error: {told}")
    print(f"ok: {told}")


def check(prefix: Path) -> None:
    """Everything, in the current folder."""
    package = Path(ctxpeft.__file__ or "").resolve()
    expect(package.is_relative_to(prefix.resolve()), f"ctxpeft {ctxpeft.__version__} comes from {prefix}")
    counts = {kind: len(shipped_names(kind)) for kind in ("variants", "search")}
    expect(counts["variants"] > 40 and counts["search"] > 5, f"variants and spaces ship: {counts}")
    for kind in counts:
        files = [str(shipped_file(kind, name)) for name in shipped_names(kind)]
        found = command("validate", *files)["files"]
        expect(len(found) == counts[kind], f"all {kind} are valid")
        for file in map(Path, files):
            named = file.read_text(encoding="utf-8").splitlines()[0].rpartition("$schema=")[2]
            if not (file.parent / named).is_file():
                raise SystemExit(f"error: {file} names the schema {named}, which does not ship")
    names = sorted(path.name for path in shipped_folder("docs/schema").iterdir())
    expect(names == ["space.json", "variant.json"], f"schemas ship: {names}")
    expect((mini_model_path() / "model.safetensors").is_file(), "the small model ships")
    expect(bool(task_names() and protocol_names()), f"tasks ship: {[*task_names(), *protocol_names()]}")
    blocks = command("ls", "blocks")["blocks"]
    expect(len(blocks) > 40, f"{len(blocks)} blocks are found by their entry points")
    expect((package.parent / "py.typed").is_file(), "types ship")
    expect(not command("doctor", "--model", "ctxpeft-mini")["problems"], "doctor finds no problem")
    command("cp", "prefix-tuning-plus", "mine.yaml")
    small = ["steps=2", "limit=16", "test_limit=8", "validation_limit=8", "batch_size=4", "generate_limit=0"]
    trained = command("train", "-v", "mine.yaml", "-t", "docstring-area", "--out", "run", *small)
    expect(trained["steps"] == 2, f"a variant trains: {trained['trainable']:,} parameters")
    there = trained["evaluations"]["test"]["metrics"]
    again = command("eval", "-a", "run", "-t", "docstring-area", "test_limit=8", "generate_limit=0")
    expect(again["evaluations"]["test"]["metrics"] == there, "what was saved evaluates as it did")


if __name__ == "__main__":
    check(Path(sys.argv[1]))

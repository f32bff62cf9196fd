"""What the shell completes: names of what ships, and files, without importing anything slow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import escape, iglob

INSTRUMENTS = ("dilution", "spectrum", "attention", "gates", "reads", "slots")


def variants(incomplete: str) -> list[str]:
    """Shipped variants and YAML files."""
    from ctxpeft.shipped import shipped_names

    return _matching(incomplete, shipped_names("variants"))


def variants_with_commas(incomplete: str) -> list[str]:
    """The last of several variants, after those that are written already."""
    from ctxpeft.training import BASELINES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in [*variants(last), *_matching(last, BASELINES, False)]]


def spaces(incomplete: str) -> list[str]:
    """Shipped search spaces and YAML files."""
    from ctxpeft.shipped import shipped_names

    return _matching(incomplete, shipped_names("search"))


def shipped(incomplete: str) -> list[str]:
    """Shipped variants and search spaces."""
    from ctxpeft.shipped import shipped_names

    return _matching(incomplete, [*shipped_names("variants"), *shipped_names("search")], False)


def tasks(incomplete: str) -> list[str]:
    """Shipped tasks and YAML files."""
    from ctxpeft.data import protocol_names, task_names

    return _matching(incomplete, [*task_names(), *protocol_names()])


def models(incomplete: str) -> list[str]:
    """The shipped model, and folders."""
    folders = [path + os.sep for path in iglob(escape(incomplete) + "*") if os.path.isdir(path)]
    return [*_matching(incomplete, ["ctxpeft-mini"], False), *sorted(folders)]


def splits(incomplete: str) -> list[str]:
    """Parts of a task."""
    return _matching(incomplete, ["test", "ood", "validation", "train"], False)


def lists(incomplete: str) -> list[str]:
    """What `ls` lists."""
    return _matching(incomplete, ["variants", "blocks", "spaces", "tasks"], False)


def schemas(incomplete: str) -> list[str]:
    """What has a schema."""
    return _matching(incomplete, ["variant", "space"], False)


def laws(incomplete: str) -> list[str]:
    """Laws about a model, as their files say: importing them imports torch."""
    import re
    from pathlib import Path

    folder = Path(__file__).parents[1] / "testing" / "laws" / "host"
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("[a-z]*.py"))]
    names = [name for text in texts for name in re.findall(r"(?ms)^@host_law.*?^def (\w+)", text)]
    return _matching(incomplete, [name.replace("_", "-") for name in names], False)


def instruments(incomplete: str) -> list[str]:
    """The last of several instruments of `diagnose`, after those that are written already."""
    before, comma, last = incomplete.rpartition(",")
    names = [name for name in (*INSTRUMENTS, "all") if name not in before.split(",")]
    return [f"{before}{comma}{name}" for name in _matching(last, names, False)]


def _matching(incomplete: str, names: Iterable[str], files: bool = True) -> list[str]:
    found = [name for name in names if name.startswith(incomplete)]
    if files:
        for path in sorted(iglob(escape(incomplete) + "*")):
            if os.path.isdir(path):
                found.append(path + os.sep)
            elif path.endswith((".yaml", ".yml")):
                found.append(path)
    return found

"""Files that ship with the package: variants, search spaces and their schemas, at the top level of a checkout or inside
the wheel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ctxpeft.errors import SpecError, did_you_mean

_PACKAGE = Path(__file__).parent


def shipped_folder(kind: str) -> Path:
    """The folder of the shipped `variants`, `search` spaces, or of their schemas, `docs/schema`."""
    inside = _PACKAGE / "_shipped" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """The names of what ships, without `.yaml`."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))


def shipped_file(kind: str, name: str) -> Path | None:
    """The file of a shipped name, or None if nothing by that name ships."""
    return shipped_folder(kind) / f"{name}.yaml" if name in shipped_names(kind) else None


def variant_path(what: str, others: Iterable[str] = ()) -> Path:
    """The file of a shipped variant's name, or a path itself; imports nothing that a variant needs.

    Raises SpecError with the nearest name, one of `others` (such as the baselines) too.
    """
    if what.endswith((".yaml", ".yml", ".json")) or os.sep in what or os.path.isfile(what):
        return Path(what)
    found = shipped_file("variants", what)
    if found is None:
        hint = did_you_mean(what, [*shipped_names("variants"), *others], "ctxpeft ls variants")
        raise SpecError(f"no shipped variant is called {what!r} and no such file exists{hint}")
    return found


def space_path(what: str) -> Path:
    """The file of a shipped space's name, or a path itself. Raises SpecError; imports nothing that a space needs."""
    if what.endswith((".yaml", ".yml")) or os.sep in what or os.path.isfile(what):
        return Path(what)
    found = shipped_file("search", what)
    if found is None:
        hint = did_you_mean(what, shipped_names("search"), "ctxpeft ls spaces")
        raise SpecError(f"no shipped search space is called '{what}' and no such file exists{hint}")
    return found

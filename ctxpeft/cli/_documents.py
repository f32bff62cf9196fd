"""What a YAML file is, by its keys, and whether it is a valid one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxpeft.errors import SpecError
from ctxpeft.spec.yaml_lines import read_yaml

if TYPE_CHECKING:
    from ctxpeft.spec.guide import Advice, Facts

SPACE_KEYS = {"anchors", "budget", "rates", "search"}
TASK_KEYS = {"train", "validation", "test", "ood", "hub", "columns", "template", "label_words"}
VARIANT_KEYS = {"name", "title", "source", "regime", "differs", "modules", "peft", "training"}

DATA_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")


@dataclass(frozen=True)
class Found:
    """A valid file: a `variant` (with its fingerprint and the guide's advice on it), a `space` or a `task`."""

    kind: str
    fingerprint: str | None = None
    advice: tuple[Advice, ...] = ()


def read_spec(path: Path, facts: Facts | None = None) -> Found:
    """Read and check one file; `facts` of model and data are told to the guide.

    Raises a CtxpeftError if the file is not valid; `mistakes` holds a sentence for each thing that can be told at once.
    """
    if path.suffix.lower() in DATA_SUFFIXES and path.is_file():
        raise SpecError(
            f"{path} is data: expected a variant, a search space or a task, each a YAML file; "
            f"'ctxpeft train --variant V --data {path} --dry-run' reads and checks data"
        )
    document = read_yaml(path)
    kind = kind_of(document.data)
    if kind == "space":
        from ctxpeft.search.spacefile import space_from_document

        space_from_document(document, path.stem, path.parent)
        return Found(kind)
    if kind == "task":
        from ctxpeft.tasks import load_task

        load_task(path)
        return Found(kind)
    from ctxpeft.spec.guide import advice
    from ctxpeft.spec.load import variant_from_data

    variant = variant_from_data(document)
    return Found(kind, variant.fingerprint(), tuple(advice(variant, facts)))


def kind_of(data: Any) -> str:
    """`space` if modules are templates or the keys of a search are there, be they misspelt; `task` by its data; else
    `variant`.
    """
    if not isinstance(data, dict):
        return "variant"
    modules = data.get("modules")
    first = modules[0] if isinstance(modules, list) and modules else None
    if data.keys() & SPACE_KEYS or _means_a_space(data) or (isinstance(first, dict) and "templates" in first):
        return "space"
    if data.keys() & TASK_KEYS and not data.keys() & {"modules", "peft"}:
        return "task"
    return "variant"


def _means_a_space(data: dict[Any, Any]) -> bool:
    """Whether a key that nothing has is nearest to one of a space: `budgt`."""
    valid = sorted(SPACE_KEYS | TASK_KEYS | VARIANT_KEYS)
    unknown = [str(key) for key in data if key not in valid]
    nearest = (difflib.get_close_matches(key, valid, n=1, cutoff=0.6) for key in unknown)
    return any(found[0] in SPACE_KEYS for found in nearest if found)

"""The marks of a page, and what is put in their place."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.pages.parts import PARTS

REPOSITORY = Path(__file__).parents[2]
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}
MARK = re.compile(r"^<!-- (generated|file): (\S+) -->$", re.MULTILINE)
_CLOSED = re.compile(
    r"^(<!-- (generated|file): (\S+) -->\n)(?:(?!^<!-- (?:generated|file|end)).*\n)*?(<!-- end -->)$",
    re.MULTILINE,
)


def written(markdown: str) -> str:
    """The page with every part that has an end filled, marks kept: what is committed."""
    return _CLOSED.sub(lambda m: f"{m[1]}\n{_part(m[2], m[3])}\n\n{m[4]}", markdown)


def filled(markdown: str) -> str:
    """The page with every part filled and no marks left: what the site shows."""
    closed = _CLOSED.sub(lambda m: _part(m[2], m[3]), markdown)
    return MARK.sub(lambda m: _part(m[1], m[2]), closed)


def _part(kind: str, name: str) -> str:
    return (file(name) if kind == "file" else PARTS[name]()).strip()


def file(path: str) -> str:
    """A file of the repository, titled with its path."""
    text = (REPOSITORY / path).read_text(encoding="utf-8").strip()
    return f'```{LANGUAGES[Path(path).suffix]} title="{path}"\n{text}\n```'

"""The site: generated parts filled from the code, mathematics as MathML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from scripts.pages import filled
from scripts.pages.mathml import lift, lower


def on_config(config: Any, **_: Any) -> None:
    """Leave out of the navigation what no command has written yet (docs/evidence/reproduction.md)."""
    config["nav"] = _present(config["nav"], Path(config["docs_dir"]))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put every generated part and every file in its place, and a word for every formula."""
    text, page.meta["formulas"] = lift(filled(markdown))
    return text


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Put the formulas in their places."""
    return lower(content, page.meta["formulas"])


def _present(entries: list[Any], docs: Path) -> list[Any]:
    """The entries of a navigation whose pages exist."""
    kept: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            ((title, inner),) = entry.items()
            found = _present(inner, docs) if isinstance(inner, list) else _present([inner], docs)[:1]
            if found:
                kept.append({title: found if isinstance(inner, list) else found[0]})
        elif (docs / entry).is_file():
            kept.append(entry)
    return kept

"""Which blocks the shipped variants use, and where the evidence speaks of a variant."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ctxpeft.shipped import shipped_names
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.used import blocks_of
from ctxpeft.spec.variant import Variant

DOCS = Path(__file__).parents[2] / "docs"
_HEADING = re.compile(r"^#{1,6} (.+)$")


@cache
def shipped() -> dict[str, Variant]:
    """The shipped variants by name."""
    return {name: load_variant(name) for name in shipped_names("variants")}


@cache
def uses() -> dict[tuple[str, str], list[str]]:
    """The names of the shipped variants that use a block."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, variant in shipped().items():
        for block in blocks_of(variant):
            found.setdefault((block.family, block.kind), []).append(name)
    return found


@cache
def evidence() -> dict[str, list[tuple[str, str]]]:
    """For each variant the sections of docs/evidence that name it in a table or a command: (title, page#anchor)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for page in sorted((DOCS / "evidence").glob("*.md")):
        title, anchor, fenced = page.stem, "", False
        for line in page.read_text(encoding="utf-8").splitlines():
            fenced ^= line.startswith("```")
            heading = None if fenced else _HEADING.match(line)
            if heading:
                title, anchor = heading[1], "#" + slug(heading[1])
            if line.startswith("|"):
                for name in shipped():
                    place = (title, f"evidence/{page.name}{anchor}")
                    if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", line) and place not in found.get(
                        name, []
                    ):
                        found.setdefault(name, []).append(place)
    return found


def slug(heading: str) -> str:
    """The anchor of a heading, as the site and code hosts make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())

"""The generated parts by name."""

from __future__ import annotations

from collections.abc import Callable

from scripts.pages.blocks import blocks
from scripts.pages.tables import cli, laws, legal_combinations, protocols, rules, spaces
from scripts.pages.variants import gallery, variants

PARTS: dict[str, Callable[[], str]] = {
    "blocks": blocks,
    "cli": cli,
    "gallery": gallery,
    "laws": laws,
    "legal-combinations": legal_combinations,
    "protocols": protocols,
    "rules": rules,
    "spaces": spaces,
    "variants": variants,
}

"""Pieces of Markdown: tables, code, mathematics that a code host and the site both set."""

from __future__ import annotations

import unicodedata

from ctxpeft.spec.latex import NotationError, formula, split


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells are plain text."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Inline code, or nothing."""
    return f"`{text}`" if text else ""


def latex(text: str) -> str:
    """Blackboard notation as LaTeX of macros that a code host allows. Raises NotationError."""
    found = formula(text).replace(r"\operatorname{", r"\mathrm{")
    if any(unicodedata.category(character) == "Lm" for character in found):
        raise NotationError(f"'{text}' has a raised letter")
    return found


def maths(text: str) -> str:
    """Blackboard notation, a line of `variant_equations` or the equation of a block, as mathematics or, where it is no
    formula, as code."""
    body, _, place = text.partition("   [")
    try:
        set_ = ", ".join(f"$`{latex(part)}`$" for part in split(body))
    except NotationError:
        return code(text)
    return f"{set_} ({place.removesuffix(']')})" if place else set_

"""What notebooks show: plain HTML without colours of its own, so that it reads in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], before: str = "", after: str = "") -> str:
    """A table of text, with a paragraph before and after it where there is one."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headers)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"{_paragraph(before)}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{_paragraph(after)}"


def facts(title: str, rows: Iterable[tuple[str, str | Sequence[str]]], after: str = "") -> str:
    """A title and what is known of it, a row a fact; empty facts are left out. `after` is preformatted text."""
    lines = []
    for name, value in rows:
        texts = [value] if isinstance(value, str) else list(value)
        if any(texts):
            cell = "<br>".join(map(escape, texts))
            lines.append(
                f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{cell}</td></tr>'
            )
    folded = f"<details><summary>YAML</summary><pre>{escape(after)}</pre></details>" if after else ""
    return f"<p><b>{escape(title)}</b></p><table><tbody>{''.join(lines)}</tbody></table>{folded}"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""

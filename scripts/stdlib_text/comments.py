"""Block comments of a source file: runs of full-line comments that are prose."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from scripts.stdlib_text.source import SourceFile

_LEGAL = re.compile(
    r"copyright|licen[cs]e|all rights reserved|warrant|\bauthor\b|-\*-|pylint|http://www\.python\.org", re.I
)
_RULER = re.compile(r"([^\w\s])\1{3,}")


def block_comments(source: SourceFile) -> Iterator[tuple[int, str]]:
    """(line, text) of each run of comment lines that is neither a legal notice nor code put out of use."""
    block: list[str] = []
    first = last = 0
    for line, text in [*_comment_lines(source.text), (-1, "")]:
        if block and line != last + 1:
            joined = _RULER.sub(" ", "\n".join(block)).strip()
            if joined and not _LEGAL.search(joined) and not _is_code("\n".join(block)):
                yield first, joined
            block = []
        if not block:
            first = line
        block.append(text)
        last = line


def _comment_lines(text: str) -> Iterator[tuple[int, str]]:
    """(line, text without marker) of the comments that stand alone on their line."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
                yield token.start[0], token.string.lstrip("#:!").removeprefix(" ").rstrip()
    except (tokenize.TokenError, SyntaxError):
        return


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True

"""Multiple choice: the choices of a row and which of them is right, from the layouts in which they are published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ctxpeft.errors import DataError
from ctxpeft.tasks._files import Row

_NUMBERED = re.compile(r"\s*\b(?:answer|solution|option|ending)(\d+)\s*:\s*", re.IGNORECASE)
_ASKED = re.compile(r"^\s*please choose the correct \w+ to the \w+\s*:\s*", re.IGNORECASE)
_FORMAT = re.compile(r"\s*answer format\s*:.*$", re.IGNORECASE | re.DOTALL)


def unfolded(rows: Iterable[Row], choices: str | None) -> Iterator[Row]:
    """Rows with a column of choices; those that write them into the instruction (`Answer1: ... Answer2: ...`) get one.

    That layout is LLM-Adapters' (arXiv:2304.01933); other rows pass as they are.
    """
    for row in rows:
        text = row.values.get("instruction")
        if (choices or "choices") in row.values or not isinstance(text, str) or not _NUMBERED.search(text):
            yield row
            continue
        question, *parts = _NUMBERED.split(_FORMAT.sub("", text))
        values = {
            **{k: v for k, v in row.values.items() if k not in ("instruction", "input", "output")},
            "prompt": _ASKED.sub("", question).strip(),
            "choices": {
                "label": [f"answer{n}" for n in parts[::2]],
                "text": [p.strip() for p in parts[1::2]],
            },
        }
        yield Row(row.file, row.unit, row.number, values)


def read_choices(row: Row, choices: str, answer: str) -> tuple[tuple[str, ...], str]:
    """The texts of the choices, and that of the right one.

    The choices are a list of texts, or two lists `text` and `label`. The answer is a label, the text of a choice, its
    letter, or its number from zero.

    Raises:
        DataError: no such column, fewer than two choices, or an answer that is none of them.
    """
    given = row.values.get(choices)
    labels: list[str] | None = None
    if isinstance(given, Mapping):
        labels = [str(label).strip() for label in given.get("label", [])]
        given = given.get("text")
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 2:
        raise DataError(f"{row.where}: '{choices}' is no list of two choices or more")
    texts = tuple(str(text).strip() for text in given)
    if not all(texts):
        raise DataError(f"{row.where}: '{choices}' holds an empty choice")
    if labels is not None and len(labels) != len(texts):
        raise DataError(f"{row.where}: '{choices}' has {len(texts)} texts and {len(labels)} labels")
    index = _index(row.values.get(answer), texts, labels)
    if index is None:
        known = ", ".join(labels or texts)
        raise DataError(f"{row.where}: '{answer}' is {row.values.get(answer)!r}, which is none of {known}")
    return texts, texts[index]


def _index(answer: Any, texts: Sequence[str], labels: Sequence[str] | None) -> int | None:
    if answer is None or isinstance(answer, bool):
        return None
    written = str(answer).strip()
    for names in (labels, texts):
        if names is not None and written in names:
            return list(names).index(written)
    if labels is not None:
        return None
    if written.isdigit():
        return int(written) if int(written) < len(texts) else None
    place = ord(written.upper()) - ord("A") if len(written) == 1 and written.isalpha() else len(texts)
    return place if place < len(texts) else None

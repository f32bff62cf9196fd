"""Published sets in the columns of the shipped protocols, and questions behind a filler of chosen length.

python -m benchmarks.evidence.prepare fairytaleqa QUESTIONS.jsonl STORIES.jsonl OUT.jsonl
python -m benchmarks.evidence.prepare behind IN.jsonl TEXT WORDS OUT.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ctxpeft.files import write_text


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows as JSON Lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def fairytale_questions(questions: Path, stories: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Every question with the sections of its story that answer it: `story`, `question`, `completion` (all answers)."""
    sections = {row["story"]: row["sections"] for file in stories for row in read(file)}
    for row in read(questions):
        numbers = [int(n) for n in row["sections"].replace(" ", "").split(",") if n]
        story = "\n".join(sections[row["story"]][n - 1] for n in numbers)
        yield {"story": story, "question": row["question"], "completion": row["answers"]}


def behind(rows: Iterable[dict[str, Any]], text: str, words: int) -> Iterator[dict[str, Any]]:
    """Every row with `context`, that many words of the text from a place that its own text decides."""
    filler = text.split()
    for row in rows:
        digest = hashlib.sha256(str(row["text"]).encode()).digest()
        start = int.from_bytes(digest[:8], "big") % max(len(filler) - words, 1)
        yield {**row, "context": " ".join(filler[start : start + words])}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence.prepare")
    commands = parser.add_subparsers(dest="command", required=True)
    tales = commands.add_parser("fairytaleqa")
    for name in ("questions", "stories", "out"):
        tales.add_argument(name, type=Path)
    fill = commands.add_parser("behind")
    fill.add_argument("rows", type=Path)
    fill.add_argument("text", type=Path)
    fill.add_argument("words", type=int)
    fill.add_argument("out", type=Path)
    given = parser.parse_args()
    if given.command == "fairytaleqa":
        write(given.out, fairytale_questions(given.questions, [given.stories]))
    else:
        write(given.out, behind(read(given.rows), given.text.read_text(encoding="utf-8"), given.words))


if __name__ == "__main__":
    main()

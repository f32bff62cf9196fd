"""Run what a page of the documentation says: its commands, its Python and its files, in order, in an empty folder.

A fenced block with a title, `yaml title="mine.yaml"`, is a file and is written; `python` without one is executed, all
blocks of a page in one scope; of `sh`, every command is run in this process. Other blocks are output. Commands that
train do so on few examples and for few steps.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ctxpeft.cli import main
from scripts.pages.usage import slug

FENCE = re.compile(
    r"^ *```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^ *```$", re.M | re.S
)
ROWS = ["limit=32", "test_limit=6", "validation_limit=6", "generate_limit=0"]
STEPS = ["steps=2", "batch_size=2", "eval_every=0"]
SMALL: dict[str, list[str]] = {
    "train": [*ROWS, *STEPS],
    "eval": ["test_limit=6", "generate_limit=0"],
    "compare": ["--seeds", "1", "--steps", "1", *ROWS, *STEPS[1:]],
    "search": ["--trials", "1", *ROWS[1:], *STEPS, "search.finalists=0"],
    "check": ["--law", "identity-at-init"],
}
LEFT_OUT = {
    "compare": {"--lr-sweep": 1, "--seeds": 2, "--steps": 2, "--sweep-steps": 2},
    "search": {"--trials": 2},
}


@dataclass
class Page:
    """A page and what its blocks need.

    replaced: words of commands that stand for something here (a hub id, a database). codes: exit codes other than 0, by
    the beginning of the command. skipped: beginnings of commands that are not run (an installer, another machine's).
    """

    path: Path
    replaced: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ("pip install", "make ")

    def run(self) -> int:
        """All blocks, in the current folder; returns how many commands and Python blocks were run."""
        module = sys.modules["page"] = types.ModuleType("page")  # where pydantic looks up annotations
        scope = vars(module)
        ran = 0
        for block in FENCE.finditer(self.path.read_text(encoding="utf-8")):
            if block["title"]:
                target = Path(block["title"])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block["body"], encoding="utf-8")
            elif block["language"] == "python":
                body = block["body"]
                for word, stand_in in self.replaced.items():
                    body = body.replace(word, stand_in)
                exec(compile(body, str(self.path), "exec"), scope)
                ran += 1
            elif block["language"] == "sh":
                ran += sum(self._command(line) for line in commands(block["body"]))
        return ran

    def _command(self, line: str) -> bool:
        if line.startswith(self.skipped):
            return False
        words = [self.replaced.get(word, word) for word in shlex.split(line, comments=True)]
        if words[:2] == ["python", "-m"]:
            _module(words[2:])
            return True
        assert words[0] == "ctxpeft", f"{self.path.name}: no way to run '{line}'"
        expected = next((code for start, code in self.codes.items() if line.startswith(start)), 0)
        assert main(small(words[1:])) == expected, f"{self.path.name}: {line}"
        return True


def commands(body: str) -> list[str]:
    """The lines of a block, continued ones joined, without remarks."""
    lines = re.sub(r" *\\\n *", " ", body).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def small(words: list[str]) -> list[str]:
    """The command with few rows, steps and seeds."""
    if "--dry-run" in words or words[0] not in SMALL:
        return words
    left_out = LEFT_OUT.get(words[0], {})
    kept: list[str] = []
    rest = list(words)
    while rest:
        count = left_out.get(rest[0], 0)
        if not count:
            kept.append(rest[0])
        rest = rest[max(count, 1) :]
    kept = [
        w for w in kept if not w.startswith(("steps=", "limit=", "batch_size=", "eval_every=", "per_class="))
    ]
    few = [w for w in SMALL[words[0]] if not (w.startswith("limit=") and "--per-class" in kept)]
    return [*kept, *few]


def _module(words: list[str]) -> None:
    before = sys.argv
    sys.argv = words
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        assert not ended.value.code, " ".join(words)
    finally:
        sys.argv = before


LINK = re.compile(r"!?\[[^\]]*\]\((?!https?:|mailto:)(?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]+))?\)")


def broken_links(page: Path) -> list[str]:
    """The relative links of a Markdown file that lead to no file, or to no heading of it."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in LINK.finditer(text):
        target = (page.parent / link["target"]).resolve() if link["target"] else page
        known = target.exists()
        if known and link["anchor"] and target.suffix == ".md":
            known = link["anchor"] in anchors(target)
        if not known:
            broken.append(link[0])
    return broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    text = page.read_text(encoding="utf-8")
    return {slug(heading) for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.M)}

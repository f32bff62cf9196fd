"""Run what a page of the documentation says: its commands, its Python and its files, in order, in an empty folder.

A fenced block with a title, `yaml title="mine.yaml"`, is a file and is written; `python` without one is executed, all
blocks of a page in one scope; of `sh`, every command is run in this process. Other blocks are output. Commands that
train do so on few examples and for few steps; what installs, serves or measures for hours is given to its own parser.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from packaging.requirements import Requirement

from ctxpeft.cli import main
from scripts.pages.usage import slug
from tests.search.postgres import programs

REPOSITORY = Path(__file__).parents[1]
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
    the beginning of the command. added: words after a command, by its beginning, that make it smaller still; before:
    words between its beginning and the rest.
    """

    path: Path
    replaced: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    before: dict[str, list[str]] = field(default_factory=dict)

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
        words = [self.replaced.get(word, word) for word in shlex.split(line, comments=True)]
        assert words[0] in PROGRAMS, f"{self.path.name}: no way to run '{line}'"
        words += next((more for start, more in self.added.items() if line.startswith(start)), [])
        for start, more in self.before.items():
            if line.startswith(start):
                place = len(start.split())
                words[place:place] = more
        expected = next((code for start, code in self.codes.items() if line.startswith(start)), 0)
        assert PROGRAMS[words[0]](words[1:]) == expected, f"{self.path.name}: {line}"
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


def _python(words: list[str]) -> int:
    assert words[0] == "-m", words
    if words[1] in PARSED:
        return PARSED[words[1]](words[2:])
    before = sys.argv
    sys.argv = words[1:]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return int(ended.value.code or 0)
    finally:
        sys.argv = before


def _reliability(words: list[str]) -> int:
    from tests.reliability.__main__ import parser

    parser().parse_args(words)
    return 0


def _harness(words: list[str]) -> int:
    """The harness reads its arguments, ours among its models; it does not run."""
    from ctxpeft.integrations import lm_eval

    with (
        mock.patch("lm_eval._cli.HarnessCLI.execute") as execute,
        mock.patch.object(sys, "argv", ["lm_eval", *words]),
    ):
        lm_eval.main()
    ((given,), _) = execute.call_args
    assert given.model == "ctxpeft"
    assert set(given.model_args) == {"pretrained", "adapter"}
    return 0


def _pip(words: list[str]) -> int:
    """pip reads its options, the extras are ours, and what is installed from a folder is there."""
    assert words[0] == "install"
    if find_spec("pip") is None:
        pytest.skip("needs pip")
    from pip._internal.commands import create_command

    options, names = create_command("install").parse_args(words[1:])
    for folder in options.editables:
        assert (REPOSITORY / folder / "pyproject.toml").is_file(), folder
    for wanted in map(Requirement, names):
        if wanted.name == "ctxpeft":
            assert wanted.extras <= set(metadata("ctxpeft").get_all("Provides-Extra") or ()), wanted
    return 0


def _make(words: list[str]) -> int:
    """make says what it would do."""
    command = ["make", "--dry-run", "--directory", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def _pytest(words: list[str]) -> int:
    """The folders are there; their tests run elsewhere."""
    assert not [word for word in words if word.startswith("-")], words
    return int(not all((REPOSITORY / word).exists() for word in words))


def _dashboard(words: list[str]) -> int:
    """The dashboard opens the study, and does not serve it."""
    from optuna_dashboard import _cli

    with (
        mock.patch.object(_cli, "run_wsgiref") as first,
        mock.patch.object(_cli, "run_gunicorn") as second,
        mock.patch.object(sys, "argv", ["optuna-dashboard", *words]),
    ):
        _cli.main()
    return int(not (first.called or second.called))


def _postgres(program: str) -> Callable[[list[str]], int]:
    """A program of PostgreSQL knows the options; without it nothing is known."""

    def knows(words: list[str]) -> int:
        folder = programs()
        path = shutil.which(program) or (folder and folder / program)
        if not path:
            return 0
        said = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=60).stdout
        return int(not {w for w in words if w.startswith("-")} <= set(re.findall(r"--?[\w-]+", said)))

    return knows


PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "ctxpeft": lambda words: main(small(words)),
    "python": _python,
    "pip": _pip,
    "make": _make,
    "pytest": _pytest,
    "optuna-dashboard": _dashboard,
    "createuser": _postgres("createuser"),
    "createdb": _postgres("createdb"),
}
"""What a page may call, each run or read by its own parser."""
PARSED = {"tests.reliability": _reliability, "ctxpeft.integrations.lm_eval": _harness}
"""Modules whose arguments are read and that are not run: hours, or a model of the hub."""


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

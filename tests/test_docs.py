"""The generated parts of the documentation are what the code says."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import ctxpeft
from ctxpeft.cli import main
from ctxpeft.cli._model import empty_model
from ctxpeft.hosts.count import count_parameters
from ctxpeft.shipped import shipped_names
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]


def test_every_mark_can_be_filled(repository: Path, hooks: Any) -> None:
    marks = [
        (kind, name)
        for page in (repository / "docs").rglob("*.md")
        for kind, name in hooks.MARK.findall(page.read_text(encoding="utf-8"))
    ]
    assert {name for kind, name in marks if kind == "generated"} == set(hooks.PARTS)
    assert all(hooks.file(name) for kind, name in marks if kind == "file")


def test_variants_stand_with_fidelity_and_parameters(hooks: Any) -> None:
    lines = hooks.variants().splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    assert rows[0][-2:] == ["fidelity", "parameters on ctxpeft-mini"]
    names = shipped_names("variants")
    assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in names]
    skeleton = empty_model("ctxpeft-mini")
    for name, row in zip(names, rows[2:], strict=True):
        variant = ctxpeft.load_variant(name)
        fidelity = f"approximate: {variant.differs}" if variant.differs else "exact"
        assert row[-2:] == [fidelity, f"{count_parameters(skeleton, variant):,}"]


def test_the_page_about_peft_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs" / "recipes" / "migrating-from-peft.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(block, scope)
    printed = capsys.readouterr().out
    assert "name: peft-prefix-tuning" in printed
    assert "cannot be exported to PEFT: its prompt methods are slots asked by softmax" in printed


@pytest.mark.slow
def test_the_commands_about_comparing_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the page, with few rows, steps and seeds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text("Once there was a king who had no crown. " * 30)
    page = (repository / "docs" / "recipes" / "compare.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    small = [
        "limit=40",
        "test_limit=6",
        "validation_limit=6",
        "generate_limit=0",
        "batch_size=2",
        "eval_every=0",
    ]
    for block in blocks:
        words = shlex.split(block.replace("\\\n", ""))
        flags = [w for w in words[1:] if w != "--lr-sweep"]
        if "--seeds" in flags:
            flags[flags.index("--seeds") + 1] = "1"
        if "--per-class" in flags:
            flags[flags.index("--per-class") + 1] = "1,2"
        kept = small[1:] if "--per-class" in flags else small
        assert main([*flags, "--steps", "1", *kept]) == 0, capsys.readouterr().err
        assert (tmp_path / words[words.index("--out") + 1] / "runs").is_dir() or "--per-class" in words


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_the_commands_about_searching_run(
    repository: Path,
    tmp_path: Path,
    tiny_model: Path,
    tiny_task: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command of the page, in order, with a tiny model and task, few steps and designs; a file stands for
    PostgreSQL."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text("Once there was a king who had no crown. " * 30)
    for name in ("one", "two", "tiny"):
        text = "".join(f"{key}: {path}\n" for key, path in tiny_task.items())
        (tmp_path / f"{name}.yaml").write_text(f"{text}template: '{{text}} {name}:'\n")
    page = (repository / "docs" / "guide" / "search.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert len(lines) == 15
    for line in lines:
        words = shlex.split(line.replace("postgresql://user@host/db", f"sqlite:///{tmp_path / 'shared.db'}"))
        assert words[0] == "ctxpeft"
        if words[1] == "search":
            words = [
                {"ctxpeft-mini": str(tiny_model), "docstring-area": "tiny.yaml"}.get(w, w) for w in words
            ]
            words += [] if "--model" in words else ["--model", str(tiny_model)]
            words += [] if "--task" in words else ["--task", "tiny.yaml"]
            words += ["--trials", "2" if "--from" in words else "1"]
            words += ["steps=2", "batch_size=2", "validation_limit=6", "search.finalists=0"]
        assert main(words[1:]) == 0, f"{line}: {capsys.readouterr().err}"
    assert (tmp_path / "runs" / "again" / "report.html").is_file()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("page", "package", "extra"),
    [("trl", "trl", "trl"), ("lm-eval", "lm_eval", "eval"), ("serving", "torch", "")],
)
def test_recipes_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, package: str, extra: str
) -> None:
    """Every Python block of a page, in order."""
    if find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'ctxpeft[{extra}]' -c constraints.txt")
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs" / "recipes" / f"{page}.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    for block in blocks:
        exec(block, scope)

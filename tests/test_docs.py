"""The generated parts of the documentation are what the code says."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import ctxpeft
from ctxpeft.cli import main
from ctxpeft.cli._model import empty_model
from ctxpeft.data import mini_model_path, task_path
from ctxpeft.hosts.count import count_parameters
from ctxpeft.shipped import shipped_file, shipped_names
from scripts.pages import MARK, PARTS, filled, written
from scripts.pages.marks import file
from scripts.pages.mathml import lift, lower
from scripts.pages.variants import variants
from tests.pages import Page, broken_links
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]


def _with_csv(page: Path) -> Page:
    """The files of the five minutes lie there already, and a variant of one's own."""
    for split, rows in (("train", 48), ("test", 12)):
        found = [json.loads(line) for line in (task_path("docstring-area") / f"{split}.jsonl").open()][:rows]
        with Path(f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(found)
    if "cp prefix-tuning-plus mine.yaml" not in page.read_text(encoding="utf-8"):
        shutil.copy(shipped_file("variants", "prefix-tuning-plus") or "", "mine.yaml")
    return Page(page)


def _hub(page: Path) -> Page:
    """The shipped model stands for models of the hub."""
    base = str(mini_model_path())
    names = ("Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-3B")
    return Page(page, dict.fromkeys(names, base))


def _machines(page: Path) -> Page:
    found = _with_csv(page)
    found.replaced["postgresql://searcher@host/searches"] = f"sqlite:///{Path('shared.db').resolve()}"
    return found


def _trouble(page: Path) -> Page:
    found = _with_csv(page)
    small = ["limit=16", "test_limit=4", "validation_limit=4", "generate_limit=0", "steps=1", "batch_size=2"]
    train = ["train", "--task", "docstring-area", "--variant", "prefix-tuning-plus", "--out", "runs/once"]
    assert main([*train, *small]) == 0
    search = ["search", "quickstart", "--out", "runs/search", "--trials", "0", "search.finalists=0"]
    assert main([*search, *small[1:3], *small[4:]]) == 0
    return found


def _readme(page: Path) -> Page:
    """Its data, and the shipped model for those of the hub; what makes environments and long tables is left out."""
    found = replace(_with_csv(page), replaced=_hub(page).replaced)
    Path("book.txt").write_text("Once there was a king who had no crown. " * 60)
    return replace(found, skipped=(*found.skipped, "python -m benchmarks"))


def _laws(page: Path) -> Page:
    return Page(page, {"my-variant.yaml": "prefix-tuning-plus", "my-model": str(mini_model_path())})


RUN: dict[str, tuple[Callable[[Path], Page], int]] = {
    "../README.md": (_readme, 10),
    "index.md": (_hub, 1),
    "laws.md": (_laws, 2),
    "start.md": (Page, 11),
    "guide/index.md": (Page, 3),
    "guide/construction.md": (_with_csv, 8),
    "guide/choosing.md": (_with_csv, 4),
    "guide/rules.md": (_with_csv, 1),
    "guide/worked-example.md": (lambda page: replace(_with_csv(page), codes={"ctxpeft validate half": 2}), 8),
    "guide/next-variant.md": (_with_csv, 8),
    "recipes/your-data.md": (_hub, 9),
    "recipes/search-on-many-machines.md": (_machines, 2),
    "recipes/add-a-host.md": (Page, 5),
    "recipes/add-a-task.md": (Page, 5),
    "troubleshooting.md": (_trouble, 13),
}
"""Pages that are run whole, each with how many commands and Python blocks it has at least."""


def test_every_mark_can_be_filled(repository: Path) -> None:
    found = [
        (kind, name)
        for page in (repository / "docs").rglob("*.md")
        for kind, name in MARK.findall(page.read_text(encoding="utf-8"))
    ]
    assert {name for kind, name in found if kind == "generated"} == set(PARTS)
    assert all(file(name) for kind, name in found if kind == "file")


@pytest.mark.slow
def test_generated_parts_are_current(repository: Path) -> None:
    """What is committed for code hosts is what the code says; `python -m scripts.pages` writes it again."""
    pages = {page: page.read_text(encoding="utf-8") for page in (repository / "docs").rglob("*.md")}
    behind = [str(page.relative_to(repository)) for page, text in pages.items() if written(text) != text]
    assert not behind, "run python -m scripts.pages"
    assert sum("<!-- end -->" in text for text in pages.values()) > 7


def test_a_part_is_replaced_and_its_marks_are_kept() -> None:
    page = "a\n\n<!-- generated: rules -->\nold\n\n- old\n<!-- end -->\n\nb\n\n<!-- generated: rules -->\n"
    once = written(page)
    assert written(once) == once
    assert "old" not in once
    assert once.startswith("a\n\n<!-- generated: rules -->\n\n### alive-at-init")
    assert once.endswith("<!-- end -->\n\nb\n\n<!-- generated: rules -->\n")
    assert "<!--" not in filled(page)
    assert filled(page).count("### alive-at-init") == 2


def test_variants_stand_with_fidelity_and_parameters() -> None:
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in variants().splitlines()]
    assert rows[0][-2:] == ["fidelity", "parameters on ctxpeft-mini"]
    names = shipped_names("variants")
    assert [row[0] for row in rows[2:]] == [f"[`{name}`](#{name})" for name in names]
    skeleton = empty_model("ctxpeft-mini")
    for name, row in zip(names, rows[2:], strict=True):
        variant = ctxpeft.load_variant(name)
        fidelity = "approximate" if variant.differs else "exact"
        assert row[-2:] == [fidelity, f"{count_parameters(skeleton, variant):,}"]


def test_every_variant_has_its_section(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "variants.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |^<!-- end)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(shipped_names("variants"))
    assert (
        "$`o \\leftarrow o + \\mathrm{elu}\\left( q \\right)^{\\top} \\, M`$"
        in sections["prefix-tuning-plus"]
    )
    assert "evidence/index.md#five-methods-rates-tuned" in sections["prefix-tuning-plus"]


def test_mathematics_is_set_without_a_script() -> None:
    text, formulas = lift("inline $`\\frac{a}{b}`$, `code $x$`\n\n```math\n\\mathrm{elu}(q)^\\top M\n```\n")
    assert text == "inline mathinline0end, `code $x$`\n\nmathdisplay1end\n"
    page = lower("<p>inline mathinline0end</p>\n<p>mathdisplay1end</p>", formulas)
    assert page.count("<math ") == 2
    assert "<mfrac>" in page
    assert '<div class="equation"><math alttext="\\mathrm{elu}(q)^\\top M" display="block">' in page
    assert "<mi>elu</mi>" in page


def test_all_mathematics_of_the_pages_can_be_set(repository: Path) -> None:
    """Every formula becomes MathML, and uses no macro that a code host refuses."""
    count = 0
    for page in (repository / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "\\operatorname" not in text, page
        _, formulas = lift(text)
        count += len(formulas)
        assert not [f for f in formulas if re.search(r">\\[a-zA-Z]", f)], page
    assert count > 100


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    """Relative links of all Markdown of the repository, pictures and anchors too, as a code host resolves them."""
    broken = [
        f"{page.relative_to(repository)}: {link}"
        for page in [*(repository / "docs").rglob("*.md"), *repository.glob("*.md")]
        for link in broken_links(page)
    ]
    assert not broken


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
    theirs, ours = re.findall(r"trainable params: ([\d,]+)|: ([\d,]+) trainable parameters", printed)[:2]
    assert theirs[0] == ours[1] != ""
    assert "cannot be exported to PEFT: its prompt methods are slots asked by softmax" in printed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(RUN))
def test_pages_run(name: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command and Python block of a page, in order, on the shipped model, with few examples and steps."""
    monkeypatch.chdir(tmp_path)
    page, count = RUN[name]
    assert page(repository / "docs" / name).run() >= count


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

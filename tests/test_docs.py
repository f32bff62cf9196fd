"""The generated parts of the documentation are what the code says."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import ctxpeft
from benchmarks.evidence.tables import FILE
from ctxpeft.cli import main
from ctxpeft.cli._model import empty_model
from ctxpeft.data import mini_model_path, task_path
from ctxpeft.hosts.count import count_parameters
from ctxpeft.shipped import shipped_file, shipped_names
from scripts.pages import MARK, PARTS, filled, written
from scripts.pages.marks import file
from scripts.pages.mathml import lift, lower
from scripts.pages.variants import variants
from tests.pages import FENCE, PROGRAMS, Page, broken_links, commands
from tests.published import write_published
from tests.tasks.tiny import make_encoder, make_model, sentences, tiny_model, tiny_task, write_jsonl

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
    """Its data, and the shipped model for those of the hub."""
    _with_csv(page)
    Path("book.txt").write_text("Once there was a king who had no crown. " * 60)
    return replace(_tables(page), replaced=_hub(page).replaced)


def _tables(page: Path) -> Page:
    """A tiny stories3M and a tiny encoder, data by the names of the published sets, and the tables that a page names
    with two methods."""
    make_model(Path("stories3M"))
    make_encoder(Path("all-MiniLM-L6-v2"))
    for folder in (Path(), Path("data")):
        write_published(folder)
    plan = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    plan["defaults"] = {
        **plan["defaults"],
        "seeds": 1,
        "steps": 1,
        "training": {"batch_size": 2, "eval_every": 0},
    }
    named = {"trec", *re.findall(r"benchmarks\.evidence run ([a-z][\w-]*)", page.read_text(encoding="utf-8"))}
    few = {
        "variants": ["prefix-tuning-plus", "none"],
        "sizes": ["default"],
        "against": None,
        "claims": [],
        "steps": 1,
    }
    plan["tables"] = {name: {**plan["tables"][name], **few} for name in sorted(named)}
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    return Page(page, before={"python -m benchmarks.evidence": ["--plan", "plan.yaml"]})


def _evidence(page: Path) -> Page:
    """The files beside the page too; the model of the hub is another tiny one."""
    found = _tables(page)
    make_model(Path("Qwen/Qwen2.5-0.5B"))
    for folder in (page.parent, page.parents[2] / "search"):
        shutil.copytree(folder, folder.relative_to(page.parents[2]))
    for name in ("trec/prefix-16-keys-*.yaml", "quadratic/*.yaml"):
        for path in page.parent.glob(name):
            shutil.copy(path, path.name)
    return replace(found, added={"ctxpeft search": ["--dry-run"]})


def _metamath(page: Path) -> Page:
    """A tiny model and files for those of the hub."""
    make_model(Path("tiny-model"))
    asked = [{"type": "x", "query": f"we saw {i}", "response": f"The answer is: {i}"} for i in range(40)]
    write_jsonl(Path("metamath.jsonl"), asked)
    for name, count in (("train", 60), ("test", 7)):
        rows = [{"question": f"how many {i}", "answer": f"some\n#### {i}"} for i in range(count)]
        write_jsonl(Path(f"{name}.jsonl"), rows)
    write_jsonl(Path("wiki.jsonl"), [{"text": f"the old fox near {i} red plums " * 3} for i in range(5)])
    files = ["--metamath", "metamath.jsonl", "--gsm8k", "train.jsonl,test.jsonl", "--wiki", "wiki.jsonl"]
    small = ["model_id=tiny-model", "dtype=float32", "max_steps=4", "eval_steps=2", "max_seq_length=96"]
    short = "generation_kwargs={max_length: 100, max_new_tokens: 4}"
    run = "python -m benchmarks.metamath run prefix-tuning-plus/llama-3.2-3B-lr_0.001 --results"
    return Page(page, added={f"{run} peft": [*files, "--set", *small, short], f"{run} results": [short]})


def _report(page: Path) -> Page:
    make_model(Path("tiny"))
    write_jsonl(Path("rows.jsonl"), sentences(60, 1))
    few = ["validation_limit=4", "steps=1", "batch_size=2", "search.finalists=0"]
    on = ["--model", "tiny", "--data", "rows.jsonl", "test_fraction=0.2", "--trials", "0"]
    assert main(["search", "quickstart", "--out", "runs/search-quickstart", *on, *few]) == 0
    return Page(page)


def _block(page: Path) -> Page:
    shutil.copy(shipped_file("variants", "prefix-tuning-plus") or "", "mine.yaml")
    shutil.copy(shipped_file("search", "quickstart") or "", "space.yaml")
    return Page(page)


def _laws(page: Path) -> Page:
    return Page(page, {"my-variant.yaml": "prefix-tuning-plus", "my-model": str(mini_model_path())})


RUN: dict[str, tuple[Callable[[Path], Page], int]] = {
    "../CONTRIBUTING.md": (Page, 3),
    "../README.md": (_readme, 13),
    "evidence/index.md": (_evidence, 3),
    "evidence/measurements.md": (_evidence, 6),
    "evidence/searches.md": (_evidence, 6),
    "evidence/reproduction.md": (_tables, 1),
    "performance.md": (Page, 1),
    "reliability.md": (Page, 2),
    "index.md": (_hub, 1),
    "laws.md": (_laws, 2),
    "start.md": (Page, 12),
    "guide/index.md": (Page, 3),
    "guide/construction.md": (_with_csv, 8),
    "guide/choosing.md": (_with_csv, 4),
    "guide/rules.md": (_with_csv, 1),
    "guide/search-report.md": (_report, 5),
    "guide/worked-example.md": (lambda page: replace(_with_csv(page), codes={"ctxpeft validate half": 2}), 9),
    "guide/next-variant.md": (_with_csv, 8),
    "recipes/your-data.md": (_hub, 9),
    "recipes/add-a-block.md": (_block, 6),
    "recipes/peft-benchmark.md": (_metamath, 3),
    "recipes/search-on-many-machines.md": (_machines, 4),
    "recipes/add-a-host.md": (Page, 5),
    "recipes/add-a-task.md": (Page, 5),
    "troubleshooting.md": (_trouble, 13),
}
"""Pages that are run whole, each with how many commands and Python blocks it has at least."""


ELSEWHERE = {
    "guide/search.md": "test_the_commands_about_searching_run",
    "recipes/compare.md": "test_the_commands_about_comparing_run",
    "recipes/migrating-from-peft.md": "test_the_page_about_peft_runs",
    "recipes/lm-eval.md": "test_recipes_run",
    "recipes/serving.md": "test_recipes_run",
    "recipes/trl.md": "test_recipes_run",
}
"""Pages whose blocks a test of their own runs."""


def unrun(page: Path, repository: Path) -> list[str]:
    """The fenced blocks of a page that no test runs, each with its line and what it needs."""
    text = page.read_text(encoding="utf-8")
    name = os.path.relpath(page, repository / "docs")
    ran = name in RUN or name in ELSEWHERE
    blocks = list(FENCE.finditer(text))
    generated = [m.span() for m in re.finditer(r"<!-- generated: .*?<!-- end -->", text, re.S)]
    lines = re.findall(r"^[ >]*(?:```|~~~).*$", text, re.M)
    found = [f"{len(lines)} fences, {len(blocks)} blocks"] if len(lines) != 2 * len(blocks) else []
    for block in blocks:
        language, title, body = block["language"], block["title"], block["body"]
        copied = bool(title) and (repository / title).is_file() and body in (repository / title).read_text()
        fault = None
        if language in ("sh", "python") and not (ran or copied):
            fault = "its page is in neither RUN nor ELSEWHERE"
        elif language == "text" and not any(a <= block.start() < b for a, b in generated):
            calls = [x for x in commands(body) if x.removeprefix("$ ").split()[0] in {*PROGRAMS, *OTHERS}]
            fault = f"'{calls[0]}' is fenced as text" if calls else None
        elif language == "yaml" and not title and name != "recipes/add-a-gate.md":  # of a package of its own
            modules = yaml.safe_load(body)
            ctxpeft.load_variant(modules if isinstance(modules, dict) else {"name": "it", "modules": modules})
        elif language in ("yaml", "csv", "toml") and title and not (ran or copied):
            fault = f"{title} is written by no test"
        elif language not in ("sh", "python", "text", "yaml", "csv", "toml", "math"):
            fault = f"'{language}' is run by nothing"
        if fault:
            found.append(f"line {text.count(chr(10), 0, block.start()) + 1}: {fault}")
    return found


OTHERS = (
    "python3",
    "git",
    "docker",
    "curl",
    "uv",
    "conda",
    "torchrun",
    "accelerate",
    "lm_eval",
    "twine",
    "mkdocs",
)


def test_every_block_is_run(repository: Path) -> None:
    """No fenced block of a page with a command or code is left to the reader alone."""
    pages = [repository / "README.md", repository / "CONTRIBUTING.md", *(repository / "docs").rglob("*.md")]
    faults = [f"{page.relative_to(repository)}: {told}" for page in pages for told in unrun(page, repository)]
    assert not faults, "\n".join(faults)
    assert set(ELSEWHERE.values()) <= set(globals())
    assert all((repository / "docs" / name).is_file() for name in (*RUN, *ELSEWHERE))


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("```sh\nctxpeft ls variants\n```\n", "line 1: its page is in neither RUN nor ELSEWHERE"),
        ("```python\nimport ctxpeft\n```\n", "line 1: its page is in neither"),
        ("```text\n$ ctxpeft ls variants\n```\n", "'$ ctxpeft ls variants' is fenced as text"),
        ("a\n\n```bash\nls\n```\n", "line 3: 'bash' is run by nothing"),
        ("```\nctxpeft ls\n```\n", "2 fences, 0 blocks"),
        ('```yaml title="a.yaml"\na: 1\n```\n', "a.yaml is written by no test"),
    ],
)
def test_a_block_that_nothing_runs_is_told(block: str, told: str, repository: Path, tmp_path: Path) -> None:
    page = tmp_path / "new.md"
    page.write_text(block)
    (fault,) = unrun(page, repository)
    assert told in fault


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
    assert "evidence/measurements.md#five-methods-rates-tuned" in sections["prefix-tuning-plus"]


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
    monkeypatch.setenv("DATA", str(tmp_path))
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
    lines = [line for block in blocks for line in commands(block)]
    assert len(lines) == 7
    write_jsonl(tmp_path / "rows.jsonl", sentences(60, 1))
    triples = [{"triples": [f"A{i} | is | B"], "completion": f"A{i} is B"} for i in range(40)]
    write_jsonl(
        tmp_path / "webnlg.jsonl",
        [
            {**row, "references": [], "category": ("Food", "Artist")[i % 5 == 0]}
            for i, row in enumerate(triples)
        ],
    )
    make_model(tmp_path / "Qwen" / "Qwen2.5-0.5B")
    make_encoder(tmp_path / "microsoft" / "deberta-v3-small")
    small = [
        "limit=40",
        "test_limit=6",
        "validation_limit=6",
        "generate_limit=0",
        "batch_size=2",
        "eval_every=0",
    ]
    for line in lines:
        words = shlex.split(line)
        flags = [w for w in words[1:] if w != "--lr-sweep"]
        if (
            hub := words[words.index("--task") + 1]
        ) != "docstring-area":  # its prompt and columns, other rows
            flags += ["--data", "webnlg.jsonl" if hub == "webnlg" else "rows.jsonl", "test_fraction=0.2"]
        if "--seeds" in flags:
            flags[flags.index("--seeds") + 1] = "1"
        elif hub != "docstring-area":
            flags += ["--seeds", "1"]
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
    """Every Python block and command of a page, in order."""
    if find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'ctxpeft[{extra}]' -c constraints.txt")
    monkeypatch.chdir(tmp_path)
    assert Page(repository / "docs" / "recipes" / f"{page}.md").run() > 1

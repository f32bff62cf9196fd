"""The tables of docs/evidence: they load, run, resume and become a page."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.evidence.__main__ import main
from benchmarks.evidence.pages import parts, verdict
from benchmarks.evidence.prepare import behind, fairytale_questions
from benchmarks.evidence.prepare import write as write_rows
from benchmarks.evidence.tables import load_plan
from ctxpeft.analysis.comparison import Comparison
from ctxpeft.tasks import load_task
from ctxpeft.training._job import Job
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]

PLAN = {
    "defaults": {
        "seeds": 1,
        "steps": 1,
        "sizes": ["default"],
        "budget": "prefix-tuning-plus",
        "training": {"batch_size": 4, "eval_every": 0},
    },
    "untestable": ["Anything large."],
    "tables": {
        "plain": {
            "title": "Plain",
            "asks": "Whether it runs.",
            "task": "trec",
            "train": ["train.jsonl"],
            "test": ["test.jsonl"],
            "unrelated": ["text.txt"],
            "settings": {"test_limit": 8, "generate_limit": 0},
            "dilution": True,
            "sizes": ["default", "equal"],
            "variants": [
                "prefix-tuning-plus",
                {"use": "prefix-tuning", "name": "prefix-2", "set": {"modules.0.memory.count": 2}},
                "none",
            ],
            "equal": ["prefix-tuning-plus", {"use": "prefix-tuning", "rate": 0.05}],
            "against": "prefix-2",
            "claims": [
                {"says": "memory beats a prefix", "than": "prefix-2"},
                {"says": "nothing beats a prefix", "of": "none", "than": "prefix-2"},
            ],
        },
        "few": {
            "title": "Few",
            "asks": "How it grows.",
            "task": "trec",
            "train": ["train.jsonl"],
            "test": ["test.jsonl"],
            "per_class": [1, 2],
            "variants": ["prefix-tuning-plus", "probe"],
            "claims": [{"says": "memory beats a probe", "than": "probe"}],
        },
        "behind": {
            "title": "Behind",
            "asks": "What length does.",
            "task": "trec",
            "train": ["train.jsonl"],
            "test": ["test.jsonl"],
            "behind": {"text": "stories.jsonl", "words": [0, 5]},
            "dilution": True,
            "variants": ["prefix-tuning-plus", "prefix-tuning", "lora-qv"],
        },
    },
}


@pytest.fixture(scope="module")
def study(
    tiny_model: Path, tiny_task: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("evidence")
    data = root / "data"
    data.mkdir()
    for name in ("train", "test"):
        shutil.copyfile(tiny_task[name], data / f"{name}.jsonl")
    (data / "text.txt").write_text("\n\n".join(f"the fox saw {i} red plums" for i in range(8)))
    write_rows(data / "stories.jsonl", [{"text": "the old fox saw a plum near it " * 5}])
    (root / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    paths = {"plan": root / "plan.yaml", "data": data, "out": root / "out", "model": tiny_model}
    assert _run(paths) == 0
    return paths


def _run(paths: dict[str, Path], *words: str) -> int:
    on = ["--model", str(paths["model"]), "--data-root", str(paths["data"]), "--out", str(paths["out"])]
    return main(["--plan", str(paths["plan"]), "run", *words, *on])


def test_the_shipped_tables_are_sound() -> None:
    plan = load_plan()
    known = {e.method().name for t in plan.tables.values() for e in t.entries("default")}
    for table in plan.tables.values():
        spec = load_task(table.task)
        for size in table.sizes:
            methods = [entry.method() for entry in table.entries(size)]
            names = [method.name for method in methods]
            assert len(set(names)) == len(names)
            assert methods[0].name == "prefix-tuning-plus"
        assert {claim.than for claim in table.claims} <= known
        assert {claim.of for claim in table.claims if claim.of} <= known
        if table.against:
            assert all(claim.than == table.against for claim in table.claims if claim.of)
            assert table.against in {entry.method().name for entry in table.entries("default")}
        assert table.encoder == (spec.head == "classifier")
    assert plan.tables["sst2"].training == {"batch_size": 16, "eval_every": 0}
    assert plan.tables["e2e"].training == {"batch_size": 16, "eval_every": 0, "group_by_length": True}
    asked = {"trec", "sst2", "banking77", "e2e", "goemotions", "webnlg", "feature-maps", "prefix-length"}
    assert asked < set(plan.tables)


def test_claims_of_a_curve_are_corrected_as_its_table() -> None:
    """A difference holds or is contradicted where the table marks it, and nowhere else."""
    plan = load_plan()
    page = Path("docs/evidence/reproduction.md").read_text(encoding="utf-8")
    curves = [p for p in parts(Path("docs/evidence/results"), plan) if p.axis and p.table.claims]
    assert curves
    for part in curves:
        for claim in part.table.claims:
            said = page.split(f"| {claim.says} | ")[1].split(" |\n")[0].split("; ")
            assert len(said) == len(part.comparisons)
            body = page.split(f"## {part.table.title}")[1]
            cells = body.split(f"\n| {claim.than} | ")[1].split("\n")[0].strip(" |").split(" | ")[1:]
            assert [("**" in one) for one in said] == [cell.endswith("*)") for cell in cells]
    for name in ("trec", "sst2", "banking77", "e2e"):
        table = plan.tables[name]
        assert table.seeds >= 5
        assert table.sizes == ["default", "equal"]
        methods = [entry.method().name for entry in table.entries("default")]
        assert {"full", "lora-qv", "lora-all", "ntk-attention", "prompt-tuning", "llama-adapter"} < set(
            methods
        )


def test_everything_is_tuned_and_kept(study: dict[str, Path]) -> None:
    folder = study["out"] / study["model"].name
    for part in ("plain/default", "plain/equal", "few/default/per-class-2", "behind/default/words-5"):
        found = Comparison.from_dict(json.loads((folder / part / "compare.json").read_text()))
        assert found.tuned
        assert len(found.seeds) == 1
        assert found.entries[0].sweep
    equal = json.loads((folder / "plain" / "equal" / "compare.json").read_text())
    assert len({entry["trainable"] for entry in equal["entries"]}) == 1
    assert (folder / "plain" / "default" / "dilution.json").is_file()
    longest = json.loads((folder / "behind" / "default" / "words-5" / "dilution.json").read_text())
    assert {row["n"] for row in longest["rows"]} >= {1, 128, 256}
    assert {row["adapter"] for row in longest["rows"]} == {
        "prefix-tuning-plus",
        "prefix-tuning",
    }  # not a tuner's
    assert not (folder / "behind" / "default" / "words-0" / "dilution.json").exists()
    assert not (folder / "plain" / "equal" / "against").exists()  # the method is not among those
    rows = [json.loads(row) for row in (folder / "behind" / "data" / "test-5.jsonl").read_text().splitlines()]
    assert all(len(row["context"].split()) == 5 for row in rows)


def test_the_same_runs_are_compared_with_a_second_reference(study: dict[str, Path]) -> None:
    folder = study["out"] / study["model"].name / "plain" / "default"
    first, again = (
        Comparison.from_dict(json.loads((place / "compare.json").read_text()))
        for place in (folder, folder / "against")
    )
    assert [entry.name for entry in again.entries] == ["prefix-2", "prefix-tuning-plus", "none"]
    assert {entry.name: entry.values for entry in again.entries} == {e.name: e.values for e in first.entries}
    one, other = first.entries[1].difference, again.entries[1].difference
    assert one is not None
    assert other is not None
    assert other.mean == -one.mean
    assert not (folder / "against" / "runs").exists()


def test_a_second_run_only_reads(study: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Job, *args: Any) -> Any:
        raise AssertionError(f"{self.method.name} ran again")

    monkeypatch.setattr(Job, "complete", refuse)
    assert _run(study) == 0


def test_a_size_may_run_alone(study: dict[str, Path], tmp_path: Path) -> None:
    elsewhere = {**study, "out": tmp_path}
    assert _run(elsewhere, "plain", "--size", "equal") == 0
    assert [path.name for path in (tmp_path / study["model"].name / "plain").iterdir()] == ["equal"]


def test_an_interrupted_run_goes_on(
    study: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {**study, "out": tmp_path}
    complete, done = Job.complete, [0]

    def interrupted(self: Job, *args: Any) -> Any:
        done[0] += 1
        if done[0] == 3:
            raise KeyboardInterrupt
        return complete(self, *args)

    monkeypatch.setattr(Job, "complete", interrupted)
    assert _run(elsewhere, "few") == 130
    assert _run(elsewhere, "few") == 0
    one, two = (
        json.loads((out / study["model"].name / "few" / "default" / "curve.json").read_text())["points"]
        for out in (study["out"], tmp_path)
    )
    assert [p["values"] for p in one] == [p["values"] for p in two]


def test_packed_runs_go_on_elsewhere(
    study: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Runs that were unpacked are read; what was not finished when they were packed is trained; weights of dilution
    alone are kept, and the same runs are the same bytes."""
    archives = [tmp_path / name for name in ("a.tar.xz", "b.tar.xz")]
    for archive in archives:
        assert main(["pack", "plain", "few", "--out", str(study["out"]), "--archive", str(archive)]) == 2
        assert "there is no table 'plain'" in capsys.readouterr().err
        plan = ["--plan", str(study["plan"])]
        words = ["plain", "few", "--out", str(study["out"]), "--archive", str(archive)]
        assert main([*plan, "pack", *words]) == 0
    assert archives[0].read_bytes() == archives[1].read_bytes()
    out = tmp_path / "out"
    assert main(["unpack", str(archives[0]), "--out", str(out)]) == 0
    runs = sorted(out.rglob("result.json"))
    assert f"{len(runs)} runs are new" in capsys.readouterr().out
    kept = runs[0].parent / "metrics.jsonl"
    kept.write_text("mine")
    assert main(["unpack", str(archives[0]), "--out", str(out)]) == 0
    assert "0 runs are new" in capsys.readouterr().out
    assert kept.read_text() == "mine"
    few = [path for path in runs if "few" in path.parts]
    assert few
    assert not any((path.parent / "adapter").exists() for path in few)
    shutil.rmtree(few[0].parent)
    done: list[str] = []
    complete = Job.complete
    monkeypatch.setattr(Job, "complete", lambda self, *args: done.append("") or complete(self, *args))
    assert _run({**study, "out": out}, "plain", "few") == 0
    assert len(done) == 1
    was = study["out"] / study["model"].name / "few" / "default" / "curve.json"
    again = json.loads((out / was.relative_to(study["out"])).read_text())
    assert [p["values"] for p in again["points"]] == [
        p["values"] for p in json.loads(was.read_text())["points"]
    ]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_an_archive_that_is_none(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither broken files nor members that would lie elsewhere write anything."""
    archive, out = tmp_path / "a.tar.xz", tmp_path / "below" / "out"
    if content is None:
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(__file__, "../result.json")
    else:
        archive.write_bytes(content)
    assert main(["unpack", str(archive), "--out", str(out)]) == 2
    assert "expected an archive of runs" in capsys.readouterr().err
    assert not list(tmp_path.rglob("result.json"))


def test_what_has_finished_becomes_a_page(study: dict[str, Path], tmp_path: Path) -> None:
    on = ["--plan", str(study["plan"]), "write", "--out", str(study["out"]), "--docs", str(tmp_path)]
    assert main(on) == 0
    page = (tmp_path / "reproduction.md").read_text()
    for title in ("## Plain", "## Few", "## Behind", "### Each method at its own default size"):
        assert title in page
    assert "- Anything large." in page
    assert "| memory beats a prefix | plain, default size:" in page
    assert "| nothing beats a prefix | plain, default size:" in page
    assert "The same runs by their differences to prefix-2, corrected for the 2 comparisons again:" in page
    assert "few at 1: " in page
    assert str(study["out"]) not in page
    for figure in [line.split("(")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]:
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
    for file in (tmp_path / "results").glob("*.json"):
        assert str(study["model"].parent) not in file.read_text()
    assert main([*on[:4], str(tmp_path / "nothing"), *on[5:]]) == 0
    assert (tmp_path / "reproduction.md").read_text() == page
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump({**PLAN, "untestable": []}))
    assert main(["--plan", str(tmp_path / "bare.yaml"), *on[2:]]) == 0
    assert "cannot be tested" in page
    assert "cannot be tested" not in (tmp_path / "reproduction.md").read_text()


def test_what_memories_keep_is_told_by_length(study: dict[str, Path], tmp_path: Path) -> None:
    """Weights of those inside, shares of all, as means over layers; a part that has not measured it is not finished."""
    out = tmp_path / "out"
    shutil.copytree(study["out"], out)
    kept = out / study["model"].name / "behind" / "default" / "words-5" / "dilution.json"
    data = json.loads(kept.read_text())
    rows = [
        {"adapter": name, "module": 0, "layer": layer, "n": n, "weight": weight, "share": share}
        for name, layer, n, weight, share in (
            ("inside", 0, 1, 0.2, 0.7),
            ("inside", 1, 1, 0.6, 0.8),
            ("inside", 0, 4, 0.1, 0.3),
            ("inside", 1, 4, 0.3, 0.1),
            ("outside", 0, 1, None, 0.4),
            ("outside", 0, 4, None, 0.6),
        )
    ]
    kept.write_text(json.dumps({**data, "rows": rows}))
    on = ["--plan", str(study["plan"]), "write", "--out", str(out), "--docs"]
    assert main([*on, str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs" / "reproduction.md").read_text().split("## Behind")[1]
    assert "| weight (share) | n = 1 | n = 4 |\n|---|---|---|\n" in page
    assert "| inside | 0.40 (0.75) | 0.20 (0.20) |\n| outside | (0.40) | (0.60) |\n" in page
    assert "The adapters are those of 5 words of a story before the question." in page
    kept.unlink()
    assert main([*on, str(tmp_path / "less")]) == 0
    assert "## Behind" not in (tmp_path / "less" / "reproduction.md").read_text()


def test_a_claim_is_judged_by_the_corrected_difference(study: dict[str, Path]) -> None:
    folder = study["out"] / study["model"].name / "plain" / "default"
    data = json.loads((folder / "compare.json").read_text())
    entry = data["entries"][1]
    for mean, adjusted, word in (
        (-0.1, 0.01, "**holds** (+0.100)"),
        (0.1, 0.01, "**contradicted** (-0.100)"),
    ):
        entry["difference"] |= {"mean": mean}
        entry["adjusted"] = adjusted
        found = Comparison.from_dict(data)
        assert verdict(found, found.entries[1]) == word
        other = word.replace("holds", "?").replace("contradicted", "holds").replace("?", "contradicted")
        other = other.translate(str.maketrans("+-", "-+"))
        assert verdict(found, found.entries[1], reference_ahead=False) == other
    entry["adjusted"] = 0.06
    assert verdict(Comparison.from_dict(data), Comparison.from_dict(data).entries[1]) == "not shown (-0.100)"
    data["greater_is_better"] = False
    entry["adjusted"] = 0.01
    assert verdict(Comparison.from_dict(data), Comparison.from_dict(data).entries[1]) == "**holds** (-0.100)"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "trek", "--data-root", ".", "--out", "o"], "did you mean 'trec'"),
        (["run", "trec", "--data-root", ".", "--out", "o"], "the table trec needs --model"),
        (
            ["run", "few-shot", "--size", "equal", "--model", "m", "--data-root", ".", "--out", "o"],
            "the table few-shot has no equal size: default",
        ),
        (["run", "encoder", "--model", "m", "--data-root", ".", "--out", "o"], "needs --encoder"),
        (
            ["run", "trec", "--model", "ctxpeft-mini", "--data-root", ".", "--out", "o"],
            "--data-root names the folder",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tables.few.taks": "trec"}, ": tables.few.taks: unknown key 'taks'; did you mean 'task'?"),
        ({"tables": ["few"]}, ": tables: expected a mapping, found a list"),
        ({"tables.few": 3}, ": tables.few: expected a mapping, found 3"),
        ({"defaults.seeds": "five"}, ": tables.plain.seeds: expected a whole number, found 'five'"),
        ({"tables.few.training": {"batch_siz": 2}}, "the table few: training: batch_siz: unknown key"),
        ({"tables.few.variants": ["prefix-tunning"]}, "did you mean 'prefix-tuning'?"),
        ({"tables.few.variants": ["none", "none"]}, "the table few has two methods named 'none'"),
        ({"tables.few.task": "trek"}, "'trek'; did you mean 'trec'?"),
        ({"tables.few.settings": {"test_limi": 1}}, "did you mean 'test_limit'?"),
        ({"tables.few.budget": "lora-qq"}, "did you mean 'lora-qv'?"),
        ({"tables.plain.against": "prefix-3"}, "which it does not run; did you mean 'prefix-2'?"),
        ({"tables.behind.behind.text": "story.jsonl"}, "holds story.jsonl"),
        ({"tables.few.unrelated": ["texts.txt"]}, "holds texts.txt"),
        ({"tables.few.stories": ["tales.jsonl"]}, "holds tales.jsonl"),
        ({"tables.few.test": ["tests.jsonl"]}, "holds tests.jsonl"),
    ],
)
def test_a_plan_is_checked_before_anything_runs(
    change: dict[str, Any],
    told: str,
    tiny_model: Path,
    study: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whichever table it is wrong in."""
    plan = json.loads(json.dumps(PLAN))
    for key, value in change.items():
        *within, last = key.split(".")
        at = plan
        for part in within:
            at = at[part]
        at[last] = value
    paths = {**study, "plan": tmp_path / "plan.yaml", "out": tmp_path / "out"}
    paths["plan"].write_text(yaml.safe_dump(plan, sort_keys=False))
    assert _run(paths) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert told in error[0]
    assert not paths["out"].exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("seeds=0", "--set: seeds: expected a whole number"),
        ("steps=x", "--set: steps: expected a whole number, found 'x'"),
        ("test_limi=3", "did you mean 'test_limit'?"),
    ],
)
def test_a_setting_that_is_none(
    setting: str, told: str, study: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {**study, "out": tmp_path / "out"}
    assert _run(paths, "few", "--set", setting) == 2
    assert told in capsys.readouterr().err
    assert not paths["out"].exists()


def test_stories_are_joined_to_their_questions(tmp_path: Path) -> None:
    write_rows(tmp_path / "stories.jsonl", [{"story": "s", "sections": ["one", "two", "three"]}])
    questions = [{"story": "s", "sections": "1, 3", "question": "q", "answers": ["a", "b"]}]
    write_rows(tmp_path / "qa.jsonl", questions)
    (row,) = fairytale_questions(tmp_path / "qa.jsonl", [tmp_path / "stories.jsonl"])
    assert row == {"story": "one\nthree", "question": "q", "completion": ["a", "b"]}


def test_the_place_of_the_filler_is_that_of_the_text() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    first, again = (list(behind(rows, text, 7)) for _ in range(2))
    assert first == again
    assert first[0]["context"] != first[1]["context"]
    assert all(row["context"] in text and len(row["context"].split()) == 7 for row in first)
    shorter = next(behind(rows, text, 3))["context"]
    assert len(shorter.split()) == 3

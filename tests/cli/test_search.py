"""`ctxpeft search` and `ctxpeft report`, as a user types them."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sqlite3
from pathlib import Path

import optuna
import pytest

from ctxpeft.spec.load import load_variant
from tests.cli.running import run
from tests.search.conftest import TINY_SPACE
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_SPACE, encoding="utf-8")
    return path


def test_dry_run_shows_tree_anchors_and_designs(capsys: Capture, space: Path, tiny_model: Path) -> None:
    done = run(capsys, "search", space, "--model", tiny_model, "--dry-run")
    assert done.code == 0
    assert "merge in {compete, compete_length}" in done.out
    assert "5 structures" in done.out
    assert "anchor prefix-tuning-plus: 512 parameters" in done.out
    assert done.out.count("design-") >= 5
    assert "o ← o + elu(q)ᵀ M" in done.out
    assert not (space.parent / "runs").exists()


def test_the_text_of_forgetting_may_be_named_by_a_variable(
    capsys: Capture, space: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("Once upon a time.", encoding="utf-8")
    monkeypatch.setenv("CTXPEFT_TEXTS", str(tmp_path))
    done = run(
        capsys,
        "search",
        space,
        "--model",
        tiny_model,
        "--dry-run",
        "search.forgetting=$CTXPEFT_TEXTS/text.txt",
    )
    assert done.code == 0, done.err


def test_a_dry_run_says_what_the_budget_shuts_out(capsys: Capture, space: Path, tiny_model: Path) -> None:
    """One choice of the two has parameters of its own that go beyond the budget, and no size of it is free."""
    space.write_text(
        "budget: {parameters: {like: prefix-tuning-plus}}\n"
        "modules: [{templates: {a: {placement: outside, memory: matrix, feature_map: [elu, {kind: projection, "
        "width: 64}]}}}]",
        encoding="utf-8",
    )
    done = run(capsys, "search", space, "--model", tiny_model, "--dry-run")
    assert done.code == 0
    lines = done.out.splitlines()
    (index,) = (i for i, line in enumerate(lines) if line.endswith(": budget cannot be met"))
    assert re.match(
        r"    the budget, for example: o ← o \+ gelu\(.*\)ᵀ M: [\d,]+ parameters and no free size; the budget is 512 ",
        lines[index + 1],
    )


IMPOSSIBLE = (
    "anchors: [prefix-tuning-plus]\nbudget: {parameters: 7}\n"
    "modules: [{templates: {a: {placement: outside, memory: matrix, feature_map: [elu, gelu]}}}]\n"
    "search: {finalists: 1, seeds: 1}\n"
)


def test_a_space_of_which_no_design_can_be_ends_with_the_reasons(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    """Nothing is lost: the anchors were trained, and stand in the study and its report."""
    space.write_text(IMPOSSIBLE, encoding="utf-8")
    sentence = "tiny: no design of this space is feasible on this model: 100 of 100: budget cannot be met (the budget,"
    dry = run(capsys, "search", space, "--model", tiny_model, "--dry-run")
    assert dry.code == 2
    assert dry.err.startswith(
        f"error: {sentence} for example: 512 parameters and no free size; the budget is 7 "
    )
    assert "refused 100 of 100: budget cannot be met" in dry.out
    out = tmp_path / "study"
    where = ["--model", tiny_model, "--data", tiny_task["train"], "--out", out, "data.template={text} Label:"]
    for _ in range(2):
        done = run(capsys, "search", space, *where, "steps=2")
        assert done.code == 2
        assert f"error: {sentence}" in done.err
        assert str(out) in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
        assert (out / "report.html").is_file()
        assert "prefix-tuning-plus" in (out / "trials.csv").read_text(encoding="utf-8")


def test_rates_and_constraints_may_be_set_on_the_command_line(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    """A dotted key leaves the rest of the mapping as the space has it."""
    text = TINY_SPACE.replace("search: {", "search: {constraints: {bytes: 1.0e+9}, ")
    space.write_text(text.replace("rates: {", "rates: {centre: {slots: 0.1}, "), encoding="utf-8")
    where = ["--model", tiny_model, "--data", tiny_task["train"], "--out", tmp_path / "study", "--trials", 1]
    settings = [
        "steps=2",
        "search.finalists=0",
        "data.template={text} Label:",
        "search.constraints.parameters=9999",
    ]
    rates = ["rates.widen=1", "rates.multipliers=[1]", "rates.centre.inside.slots=0.2"]
    done = run(capsys, "search", space, *where, *settings, *rates, "--json")
    assert done.code == 0, done.err
    about = done.result["about"]
    assert about["rates"] == {"multipliers": [1], "widen": 1, "centre": {"slots": 0.1, "inside.slots": 0.2}}
    assert about["constraints"] == {"bytes": 1e9, "parameters": 9999}
    assert all(len(trial["rates"]) == 1 for trial in done.result["trials"] if "rates" in trial)


def test_dry_run_as_json(capsys: Capture, space: Path, tiny_model: Path) -> None:
    result = run(capsys, "search", space, "--model", tiny_model, "--dry-run", "--json").result
    assert result["structures"] == 5
    for design in result["designs"]:
        assert load_variant(design["variant"]).name.startswith("design-")


def test_search_then_report(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "study"
    where = ["--model", tiny_model, "--data", tiny_task["train"], "--test", tiny_task["test"], "--out", out]
    settings = ["steps=3", "search.seeds=1", "data.template={text} Label:"]
    done = run(capsys, "search", space, *where, "--trials", 2, *settings)
    assert done.code == 0, done.err
    assert "prefix-tuning-plus (anchor)" in done.out
    assert "not significant" in done.out or "significantly" in done.out
    assert "[4/4]" in done.err
    load_variant(out / "best.yaml")
    (out / "report.html").unlink()
    again = run(capsys, "report", out, "--json")
    assert again.code == 0, again.err
    assert again.result["best"]["name"] == load_variant(out / "best.yaml").name
    assert (out / "report.html").is_file()
    result = run(capsys, "search", space, *where, "--trials", 2, *settings, "--json").result
    assert len(result["trials"]) == len(again.result["trials"])


def test_runs_of_a_search_may_stop_early(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    """`patience` switches the measurements on that it counts, as in `train`."""
    where = ["--model", tiny_model, "--data", tiny_task["train"], "--out", tmp_path / "study", "--trials", 1]
    settings = [
        "patience=1",
        "steps=10",
        "rates.multipliers=[1]",
        "search.seeds=1",
        "data.template={text} Label:",
    ]
    done = run(capsys, "search", space, *where, *settings, "--json")
    assert done.code == 0, done.err
    assert "failed" not in {trial["outcome"] for trial in done.result["trials"]}
    stopped = [json.loads(file.read_text()) for file in (tmp_path / "study" / "runs").glob("*/result.json")]
    assert all(run["held_out"] for run in stopped)


def test_the_page_about_reports_is_what_happens(
    capsys: Capture,
    space: Path,
    tiny_model: Path,
    tiny_task: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: Path,
) -> None:
    """Every `ctxpeft report` of the page, on a study that lies where the page says."""
    monkeypatch.chdir(tmp_path)
    where = ["--model", tiny_model, "--data", tiny_task["train"], "--test", tiny_task["test"], "--trials", 1]
    named = ["--out", "runs/search-quickstart", "--study", "quickstart"]
    settings = ["steps=3", "search.finalists=0", "search.warmup=9", "data.template={text} Label:"]
    assert run(capsys, "search", space, *where, *named, *settings).code == 0
    page = (repository / "docs" / "guide" / "search-report.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("ctxpeft report")]
    assert len(commands) == 3
    for command in commands:
        Path("runs/search-quickstart/report.html").unlink(missing_ok=True)
        done = run(capsys, *shlex.split(command)[1:])
        assert done.code == 0, done.err
        written = Path("runs/report" if "--out" in command else "runs/search-quickstart") / "report.html"
        assert "no interval can be given" in written.read_text(encoding="utf-8")
        assert (
            done.result["best"]["name"].startswith("found-")
            if "--json" in command
            else "report  " in done.out
        )


MISTAKES = [
    (["search", "quikstart"], "did you mean 'quickstart'?"),
    (["search", "SPACE", "--dry-run"], "tiny names no model: give --model M"),
    (["search", "SPACE", "--model", "MODEL"], "tiny names no task: give --task T or --data FILE..."),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "stpes=3"], "did you mean 'steps'?"),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "search.rung=2"], "search.rung"),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "search.kep=1"], "did you mean 'search.keep'?"),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "budget.parametrs=9"],
        "unknown setting 'budget.parametrs'; did you mean 'budget.parameters'?",
    ),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "serch.keep=1"], "did you mean 'search.keep'?"),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "budget.parameters="],
        "the command line: budget.parameters: a value is missing; expected a whole number such as 30000, or {like: ",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "budget.parameters.like=lora-vq"],
        "did you mean 'lora-qv'?",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "budget.tolerance=0.1"],
        "budget.parameters: missing; this key is required",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "search.forgetting="],
        "search.forgetting: a value is missing; expected the path of a text file",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "search.forgetting=/nonexist"],
        "search.forgetting: the file /nonexist does not exist; expected a text file",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "search.forgetting=$CTXPEFT_NO_SUCH/text.txt"],
        "search.forgetting: the file $CTXPEFT_NO_SUCH/text.txt names an environment variable that is not set",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "patience=3", "eval_every=0"],
        "the command line: training: patience counts held-out measurements, of which eval_every: 0 makes none",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "learning_rate=1e-9"],
        "training.learning_rate: the search tunes rates itself; set rates.multipliers, rates.widen or rates.centre",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "training.seed=3"],
        "the search gives every run its seed; set search.seed",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "steps=many"],
        "the command line: training.steps: expected a whole number, found",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "max_length=1"],
        "the command line: data.max_length: ",
    ),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "rates.widne=0"], "did you mean 'rates.widen'?"),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "rates.centre.slot=1"], "did you mean 'slots'?"),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "search.constraints.latancy=1.5"],
        "did you mean 'latency'?",
    ),
    (["search", "SPACE", "--model", "MODEL", "--dry-run", "--test", "t.csv"], "--test belongs to --data"),
    (
        ["search", "SPACE", "--model", "MODEL", "--task", "docstring-area", "--test", "t.csv"],
        "belongs to --data",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "--from", "/nonexistent.json"],
        "the file /nonexistent.json does not exist: expected the folder of a search, or its study.json",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "--from", "FOLDER/first.json"],
        "was written before studies could be continued",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "--storage", "foo"],
        "storage foo cannot be opened",
    ),
    (
        ["search", "SPACE", "--model", "MODEL", "--dry-run", "--storage", "sqlite:///FOLDER/no/s.db"],
        "cannot be opened: there is no folder",
    ),
    (
        [
            "search",
            "SPACE",
            "--model",
            "MODEL",
            "--dry-run",
            "--storage",
            "sqlite:///FOLDER/garbage/study.db",
        ],
        "is not a database",
    ),
    (["search", "SPACE", "--task", "t", "--data", "d.csv", "--model", "MODEL"], "exclude each other"),
    (["search"], "missing argument 'SPACE'"),
    (
        ["search", "SPACE", "--model", "MODEL", "--task", "docstring-area", "--out", "FOLDER/run"],
        "run holds a run of ctxpeft train: take another --out for a search",
    ),
    (["report"], "expected the folder of a search, or --storage URL"),
    (["report", "nowhere"], "no folder nowhere: expected the folder of a search"),
    (
        ["report", "nosuch.json"],
        "the file nosuch.json does not exist: expected the folder of a search, or its study.json",
    ),
    (["report", "FOLDER"], "holds no study.db: expected the folder of a search"),
    (["report", "FOLDER/elsewhere"], "its study is in another storage, give --storage URL --study NAME"),
    (["report", "FOLDER/garbage"], "garbage/study.db cannot be read as a database: file is not a database"),
    (["report", "FOLDER/other"], "other/study.db is a database of something else"),
    (["report", "FOLDER/two"], "holds 2 studies; give --study NAME (first, second)"),
    (["report", "FOLDER/two", "--study", "frist"], "holds no study 'frist'; did you mean 'first'?"),
    (["report", "FOLDER/two", "--study", "first"], "study 'first' was not made by ctxpeft search"),
    (
        ["report", "--storage", "sqlite:///FOLDER/none.db", "--out", "FOLDER/x"],
        "none.db: expected the one that",
    ),
    (
        ["report", "FOLDER", "--storage", "sqlite:///x.db"],
        "expected the folder of a search, or --storage URL",
    ),
    (["report", "--storage", "sqlite:///:memory:"], "say where to write: --out DIR"),
    (["report", "--storage", "nonsense", "--out", "x"], "storage nonsense cannot be opened"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders that are no search's, each in its own way."""
    for name in ("elsewhere", "garbage", "other", "two", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "resolved.yaml").write_text("{}")
    old = {"about": {}, "trials": [{"number": 0, "outcome": "completed"}]}
    (tmp_path / "first.json").write_text(json.dumps(old))
    (tmp_path / "elsewhere" / "search.json").write_text("{}")
    (tmp_path / "garbage" / "study.db").write_text("no database " * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "other" / "study.db")) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    for study in ("first", "second"):
        optuna.create_study(study_name=study, storage=f"sqlite:///{tmp_path / 'two' / 'study.db'}")
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_one_sentence_and_exit_2(
    arguments: list[str], message: str, capsys: Capture, space: Path, tiny_model: Path, folder: Path
) -> None:
    places = {"SPACE": str(space), "MODEL": str(tiny_model), "FOLDER": str(folder)}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run(capsys, *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_study_of_the_first_format_is_reported(capsys: Capture, tmp_path: Path, repository: Path) -> None:
    """A file that was written before studies could be continued: rows alone, the finals beside it."""
    study = repository / "docs" / "evidence" / "trec" / "study.json"
    done = run(capsys, "report", study, "--out", tmp_path / "again")
    assert done.code == 0, done.err
    assert "prefix-tuning-plus (anchor)" in done.out
    assert "fresh seeds" in (tmp_path / "again" / "report.html").read_text(encoding="utf-8")


def test_a_shipped_space_can_be_copied_and_validated(capsys: Capture, tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    assert run(capsys, "cp", "quickstart", copy).code == 0
    assert run(capsys, "validate", copy).code == 0
    listed = run(capsys, "ls", "spaces").out
    assert "quickstart" in listed
    assert "equation" in listed


def test_two_tasks_and_a_study_continued_from_its_file(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        text = f"train: {tiny_task['train']}\ntest: {tiny_task['test']}\ntemplate: '{{text}} {name}:'\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    tasks = ["--task", tmp_path / "one.yaml", "--task", tmp_path / "two.yaml"]
    command = [
        "search",
        space,
        "--model",
        tiny_model,
        *tasks,
        "steps=2",
        "search.seeds=1",
        "search.metrics=false",
        "search.keep=1",
    ]
    done = run(capsys, *command, "--trials", 1, "--out", tmp_path / "first")
    assert done.code == 0, done.err
    assert "geometric mean over tasks, relative to the frozen model" in done.out
    assert "On each task, test data, mean of 1 fresh seeds" in done.out
    study = tmp_path / "first" / "study.json"
    more = run(capsys, *command, "--trials", 2, "--out", tmp_path / "second", "--from", study, "--json")
    assert more.code == 0, more.err
    assert "resuming: 3 of 4 designs are done" in more.err
    assert len(more.result["trials"]) > 3
    assert [score["task"] for score in more.result["trials"][0]["tasks"]] == ["one", "two"]
    dry = [*command, "--dry-run", "--from", tmp_path / "first"]
    assert run(capsys, *dry).code == 0
    told = run(capsys, *dry, "steps=3")
    assert (told.code, told.out) == (2, "")
    assert "made with training.steps = 2, and is now asked for 3: --from needs the same" in told.err
    without = [word for word in dry if word not in tasks]  # the data are not known, the space is
    assert run(capsys, *without).code == 0
    told = run(capsys, *without, "search.keep=0.5")
    assert (told.code, told.out) == (2, "")
    assert "made with search.keep = 1.0, and is now asked for 0.5" in told.err


def test_samplers_are_compared_by_the_designs_they_needed(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    where = ["--model", tiny_model, "--data", tiny_task["train"], "data.template={text} Label:"]
    settings = ["steps=2", "search.finalists=0", "search.keep=1", "--trials", 2]
    for name in ("tpe", "random"):
        done = run(
            capsys, "search", space, *where, *settings, f"search.sampler={name}", "--out", tmp_path / name
        )
        assert done.code == 0, done.err
    studies = [tmp_path / "tpe", tmp_path / "random" / "study.json"]
    told = run(capsys, "report", *studies, "--target", "99", "--target", "0.001")
    assert told.code == 0, told.err
    rows = [line.split() for line in told.out.splitlines() if line.startswith(("tpe", "random"))]
    assert [row[2] for row in rows] == ["tpe", "random"]
    assert all(row[-4:] == ["1", "not", "in", "2"] for row in rows)
    result = run(capsys, "report", *studies, "--json").result
    assert {"prefix-tuning", "prefix-tuning-plus", "all reached"} == set(result["targets"])
    (tmp_path / "random" / "study.db").unlink()
    again = run(capsys, "report", tmp_path / "random", "--out", tmp_path / "again", "--json")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "report.html").is_file()


def test_a_dry_run_with_data_times_a_few_steps(
    capsys: Capture, space: Path, tiny_model: Path, tiny_task: dict[str, str], tmp_path: Path
) -> None:
    where = ["--model", tiny_model, "--data", tiny_task["train"], "data.template={text} Label:"]
    done = run(capsys, "search", space, *where, "--dry-run", "--out", tmp_path / "study")
    assert done.code == 0, done.err
    assert "expected time, from 8 steps of prefix-tuning-plus timed on this machine" in done.out
    assert "known of model and data: a usual input of " in done.out
    assert not (tmp_path / "study").exists()
    patient = run(capsys, "search", space, *where, "--dry-run", "patience=2")
    assert patient.code == 0, patient.err
    assert "note: patience is left out of the time" in patient.out
    without = run(capsys, "search", space, "--model", tiny_model, "--dry-run")
    assert "expected time: give --task T or --data FILE" in without.out
    assert "known of model and data" not in without.out

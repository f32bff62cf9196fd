"""Help: its examples are commands that run, its options stand in groups, the shell completes what it names."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ctxpeft.cli import COMMANDS, GROUPS, command_of
from ctxpeft.cli._arguments import DATA, OUTPUT, RUN, WHAT, expand_variadic
from ctxpeft.cli._help import epilog, examples
from ctxpeft.data import mini_model_path
from ctxpeft.shipped import shipped_names
from tests.cli.running import run
from tests.tasks.tiny import sentences, write_jsonl

Capture = pytest.CaptureFixture[str]
SMALL = ["test_limit=4", "generate_limit=0"]
MORE = {  # what is added to an example, for it to end soon
    "train": ["--dry-run", "limit=24", *SMALL],
    "compare": ["--dry-run", *SMALL],
    "search": ["--dry-run"],
    "check": ["--dry-run"],
    "eval": SMALL,
    "diagnose": ["--windows", "2", "--lengths", "1,4"],
}


def every_example() -> list[tuple[str, str]]:
    """(command, line) of every help."""
    return [
        (name, line)
        for name, (module, _) in COMMANDS.items()
        for line in examples(importlib.import_module(module).command)
    ]


def begun(folder: Path) -> str:
    """The file of a study of full-equation on the folder's model and task that no trial was made in yet."""
    from ctxpeft.search.archive import Archive
    from ctxpeft.search.job import Job, tasks_of
    from ctxpeft.search.spacefile import load_space

    space = load_space("full-equation")
    tasks = tasks_of(space, [str(folder / "trec.yaml")], [], [])
    laboratory = Job(space, str(folder / "model"), tasks, folder, space.name).open()
    return Archive(space.name, laboratory.describe(), {}, []).text()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with what the examples name: a model, files of data, files of one's own, a finished run."""
    from ctxpeft.cli import main

    folder = tmp_path_factory.mktemp("desk")
    (folder / "model").symlink_to(mini_model_path())
    for name in ("variants", "search", "docs"):
        (folder / name).symlink_to(repository / name)
    for name, count, seed in (("test", 30, 2), ("train", 60, 1)):
        rows = sentences(count, seed)
        lines = [f"{row['text']},{row['label']}" for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines, ""]))
        write_jsonl(folder / f"{name}.jsonl", rows)
    reviews = [f"{row['text']},{index % 3}" for index, row in enumerate(rows)]
    (folder / "reviews.csv").write_text("\n".join(["review,stars", *reviews, ""]))
    (folder / "book.txt").write_text("Once there was a king who had no crown. " * 60)
    for name in ("trec", "sst2"):
        task = {"name": name, "train": ["train.jsonl"], "test": ["test.jsonl"]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    (folder / "study.json").write_text(begun(folder), encoding="utf-8")
    assert main(["cp", "prefix-tuning-plus", str(folder / "mine.yaml"), "--no-schema"]) == 0
    assert main(["cp", "placement", str(folder / "space.yaml"), "--no-schema"]) == 0
    assert main(["validate", *map(str, folder.glob("*.yaml"))]) == 0
    quick = ["steps=1", "limit=24", "batch_size=2", "eval_every=0", *SMALL]
    runs = folder / "runs"
    for name, data in (
        ("first", ["--task", "docstring-area"]),
        ("mine", ["--data", str(folder / "train.csv")]),
    ):
        out = ["--out", str(runs / name)]
        assert main(["train", "-v", "prefix-tuning-plus", *data, *out, *quick]) == 0
    (runs / "prefix").symlink_to(runs / "first")
    (runs / "plus").symlink_to(runs / "mine")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples(name: str) -> None:
    module = importlib.import_module(COMMANDS[name][0])
    lines = examples(module.command)
    assert lines
    for line in lines:
        assert line.startswith(f"ctxpeft {name}"), line
        assert len(line) <= 120


@pytest.mark.parametrize(("name", "line"), every_example())
def test_every_example_is_understood(name: str, line: str) -> None:
    args = shlex.split(line.partition(" > ")[0])[2:]
    with command_of(name).make_context(name, expand_variadic(args)) as context:
        assert not context.args


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_copied_from_a_narrow_terminal_is_the_same_command(name: str) -> None:
    function = importlib.import_module(COMMANDS[name][0]).command
    shown = (epilog(function) or "").replace("\\[", "[").splitlines()[1:]
    joined = "\n".join(shown).replace("\\\n", " ").splitlines()
    assert [shlex.split(line) for line in joined] == [shlex.split(line) for line in examples(function)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "line"),
    [(name, line) for name, line in every_example() if "://" not in line],
)
def test_every_example_runs(
    name: str, line: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """In a folder that has what it names; nothing is trained twice."""
    if name == "report" and "docs/evidence" not in line:
        pytest.skip("tests/cli/test_search.py reports on searches that ran")
    if name == "reproduce" and "--dry-run" not in line:
        pytest.skip("tests/training/test_reproduce.py trains again")
    if name == "search" and f"{line} --dry-run" in [other for _, other in every_example()]:
        pytest.skip("the same as with --dry-run")
    monkeypatch.chdir(desk)
    args = shlex.split(line.partition(" > ")[0])[1:]
    if name == "cp":
        args[2] = str(tmp_path / args[2])
    if name == "validate":
        args = [str(f) for arg in args for f in (sorted(Path().glob(arg)) if "*" in arg else [arg])]
    more = [item for item in MORE.get(name, []) if item not in args]
    done = run(
        capsys, *args, *(["limit=24"] if name == "compare" and "--per-class" not in args else []), *more
    )
    assert done.code == 0, done.err
    assert done.out or done.err
    if "--json" in args:
        assert json.loads(done.out)["command"] == name


def test_every_command_is_in_a_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_in_groups(name: str) -> None:
    for param in command_of(name).params:
        if param.param_type_name == "option" and "--help" not in param.opts:
            assert param.rich_help_panel in (WHAT, DATA, RUN, OUTPUT), param.opts
            assert param.help, param.opts
            assert param.help.endswith("."), param.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    assert any("--json" in param.opts for param in command_of(name).params)


@pytest.mark.parametrize("name", ["train", "eval", "compare", "search", "diagnose", "check", "reproduce"])
def test_what_runs_has_a_dry_run(name: str) -> None:
    assert any("--dry-run" in param.opts for param in command_of(name).params)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["--versoin"], "unknown option '--versoin'; did you mean '--version'?"),
        (["train", "--varaint", "ia3"], "no option --varaint; did you mean '--variant'?"),
        (["search", "quickstart", "--trails=3"], "no option --trails; did you mean '--trials'?"),
        (
            ["train", "-v", "ia3", "--steps", "3"],
            "no option --steps; it is a setting, without dashes: steps=VALUE",
        ),
        (["eval", "--max-length=9"], "it is a setting, without dashes: max_length=VALUE"),
        (["check", "prefix-tuning", "--law", "host.disabled-is-base"], "did you mean"),
        (["train", "-v", "ia3", "--task", "docstring-aera", "--dry-run"], "did you mean 'docstring-area'?"),
        (["train", "-v", "ia3", "--task", "docstring-area", "--dry-run", "lerning_rate=1"], "did you mean"),
        (["train", "-v", "ia3", "--task", "docstring-area", "--dry-run", "dtype=bfloat61"], "did you mean"),
        (["diagnose", "-a", "prefix-tuning", "--what", "dilutoin"], "did you mean 'dilution'?"),
        (["search", "quickstrat"], "did you mean 'quickstart'?"),
        (["train", "-v", "ia3", "--data", "reviews.csv", "columns.text=reveiw", "--dry-run"], "did you mean"),
    ],
)
def test_the_nearest_name_is_told(
    args: list[str], told: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(desk)
    done = run(capsys, *args)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ctxpeft tra", ["train"]),
        ("ctxpeft show prefix-tuning-plus-g", None),
        ("ctxpeft compare -v ia3,lora-", ["ia3,lora-all", "ia3,lora-qv"]),
        ("ctxpeft train --ta", ["--task"]),
        ("ctxpeft train --task docs", ["docstring-area"]),
        ("ctxpeft search quick", ["quickstart"]),
        ("ctxpeft eval --split o", ["ood"]),
        ("ctxpeft schema s", ["space"]),
        ("ctxpeft ls b", ["blocks"]),
        ("ctxpeft check prefix-tuning --law id", ["identity-at-init"]),
        ("ctxpeft diagnose --what dilution,s", ["dilution,spectrum", "dilution,slots"]),
    ],
)
def test_completion(line: str, expected: list[str] | None, tmp_path: Path) -> None:
    words = shlex.split(line)
    asked = {"_CTXPEFT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = (
        "import sys; from ctxpeft.cli import main; code = main([]);"
        "print('torch' in sys.modules, file=sys.stderr); raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **asked},
        cwd=tmp_path,
    )
    wanted = [name for name in shipped_names("variants") if name.startswith(words[-1])]
    assert done.stdout.split() == (wanted if expected is None else expected)
    assert done.stderr == "False\n"


def test_what_completes_is_what_there_is() -> None:
    from ctxpeft.analysis.diagnose import INSTRUMENTS
    from ctxpeft.cli import _complete
    from ctxpeft.testing.laws import laws

    assert _complete.INSTRUMENTS == INSTRUMENTS
    assert set(_complete.laws("")) == {law.id for law in laws() if law.ground == "host"}


def test_completion_can_be_installed(capsys: Capture) -> None:
    done = run(capsys, "--show-completion", "bash")
    assert done.code == 0
    assert "_CTXPEFT_COMPLETE=complete_bash" in done.out


def test_help_is_there_at_once() -> None:
    """Under a second, as the best of three: the machine may be busy."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ctxpeft.cli", "--help"], capture_output=True, timeout=60, check=True
        )
        best = min(best, time.perf_counter() - start)
    assert best < 1.0


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (["check", "prefix-tuning"], "laws"),
        (["diagnose", "-a", "prefix-tuning", "--lengths", "1,4"], "instruments"),
        (["eval", "--task", "docstring-area", "test_limit=4"], "examples"),
        (["reproduce", "runs/first"], "training"),
    ],
)
def test_dry_runs_say_what_would_run(
    args: list[str], key: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(desk)
    before = sorted(desk.rglob("*"))
    plan = run(capsys, *args, "--dry-run", "--json").result["plan"]
    assert plan[key]
    done = run(capsys, *args, "--dry-run")
    assert done.out.startswith("Nothing was run or written. The plan:\n")
    assert all(f"  {name}: " in done.out for name in plan)
    assert sorted(desk.rglob("*")) == before

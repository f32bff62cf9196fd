"""The command line starts without torch."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import ctxpeft
import ctxpeft.tasks
import ctxpeft.training

HEAVY = ("torch", "transformers", "optuna", "matplotlib", "sklearn", "datasets")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["no-such-command"],
        ["cp", "ia4", "x"],
        ["ls", "--help"],
        ["train", "--varaint", "x"],
        ["train", "--steps", "3"],
        ["eval", "--adaptr", "x"],
        ["search", "quickstart", "--trails", "3"],
        ["search", "quickstrat"],
    ],
)
def test_no_heavy_import(arguments: list[str]) -> None:
    assert light(arguments).stdout.endswith("IMPORTED []\n")


TASK = ["--task", "docstring-area", "--out", "runs/x"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "-v", "prefix-tunin", *TASK], "did you mean 'prefix-tuning'?"),
        (["train", "-v", "nonee", *TASK], "did you mean 'none'?"),
        (["train", "-v", "mine.yaml", *TASK], "mine.yaml: no such file"),
        (["train", "-v", "ia3", *TASK, "stpes=3"], "unknown setting 'stpes'; did you mean 'steps'?"),
        (
            ["train", "-v", "ia3", *TASK, "steps=many"],
            "training: steps: expected a whole number, found 'many'",
        ),
        (["train", "-v", "ia3", *TASK, "columns.lable=x"], "did you mean 'label'?"),
        (["train", "-v", "ia3", "--task", "docstring-aera", "-o", "x"], "did you mean 'docstring-area'?"),
        (["compare", "-v", "ia3,prefix-tunin", *TASK], "did you mean 'prefix-tuning'?"),
        (["compare", "-v", "ia3,full", *TASK, "--budget", "lora-vq"], "did you mean 'lora-qv'?"),
        (["compare", "-v", "ia3,full", *TASK, "lmit=3"], "unknown setting 'lmit'; did you mean 'limit'?"),
        (["search", "quickstart", "stpes=3"], "unknown setting 'stpes'; did you mean 'steps'?"),
        (
            ["search", "quickstart", "search.kep=1"],
            "unknown setting 'search.kep'; did you mean 'search.keep'?",
        ),
        (["check", "prefix-tunin"], "did you mean 'prefix-tuning'?"),
        (["eval", *TASK[:2], "lmit=3"], "unknown setting 'lmit'; did you mean 'limit'?"),
    ],
)
def test_a_mistyped_name_or_setting_is_refused_at_once(arguments: list[str], told: str) -> None:
    """In one sentence, with exit code 2 and before anything is imported that takes seconds."""
    done = light(arguments)
    assert done.stdout == "EXIT 2 IMPORTED []\n"
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"{told}\n")


def light(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; the last line of its output says what heavy is imported afterwards."""
    code = (
        "import sys, ctxpeft.cli\n"
        f"code = ctxpeft.cli.main({arguments!r})\n"
        f"print('EXIT', code, 'IMPORTED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


@pytest.mark.parametrize("package", [ctxpeft, ctxpeft.tasks, ctxpeft.training])
def test_every_public_name_is_found_on_first_use(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(package, "nothing")  # noqa: B009


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, ctxpeft\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_is_installed_beside_says_nothing() -> None:
    """torchao, where it is installed, warns as it is imported; that is not what was asked."""
    command = [sys.executable, "-m", "ctxpeft.cli", "show", "prefix-tuning-plus", "--model", "ctxpeft-mini"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""

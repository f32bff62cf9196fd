"""The command line starts without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
    code = (
        "import sys, ctxpeft.cli\n"
        f"ctxpeft.cli.main({arguments!r})\n"
        f"print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "IMPORTED []"


def test_settings_are_known_without_their_models() -> None:
    from ctxpeft.cli import settings_by_name
    from ctxpeft.tasks import TaskSpec
    from ctxpeft.training import TrainingConfig

    assert settings_by_name() == {*TrainingConfig.model_fields, *TaskSpec.model_fields}


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

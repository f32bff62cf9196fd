"""A package of blocks, installed as its users install it: found everywhere, and missed in one sentence.

Everything is built by pip, offline, into a folder that only child processes have on their path.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ctxpeft
from ctxpeft.errors import AdapterError
from ctxpeft.testing.tiny import tiny_model
from tests.cli.running import run

EXAMPLE = Path(__file__).parent / "ctxpeft-example"
INSTALLED = Path(__file__).parent / "installed.py"
VARIANT = """
name: third-party
modules:
  - placement: outside
    feature_map: {kind: sine}
    memory: {kind: matrix}
"""
SPACE = "modules: [{templates: {a: {placement: inside, memory: {kind: slots}, gate: [none, length]}}}]\n"


def install(source: Path, site: Path) -> None:
    """pip, without the network and without touching this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def child(arguments: list[object], folder: Path, *sites: Path) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` where the packages in `sites` are installed."""
    path = [*map(str, sites), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def renamed(source: Path, target: Path, name: str) -> Path:
    """The example as a package of another name."""
    shutil.copytree(source, target)
    (target / "ctxpeft_example").rename(target / f"ctxpeft_{name}")
    for file in target.rglob("*"):
        if file.suffix in {".py", ".toml"}:
            text = file.read_text(encoding="utf-8")
            text = text.replace("ctxpeft_example", f"ctxpeft_{name}")
            file.write_text(text.replace("ctxpeft-example", f"ctxpeft-{name}"), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's files outside the checkout, so that building leaves nothing in it."""
    folder = tmp_path_factory.mktemp("source") / "ctxpeft-example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def site(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the example is installed in."""
    folder = tmp_path_factory.mktemp("site")
    install(source, folder)
    return folder


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tests passed; that nothing failed or was skipped is checked."""
    summary = done.stdout.splitlines()[-1] if done.stdout else ""
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"\d+ passed(, \d+ warnings?)? in .*", summary), summary
    return int(summary.split()[0])


def test_its_own_tests_pass(source: Path, site: Path) -> None:
    assert passed(child(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], source, site)) >= 10


def test_everything_knows_its_blocks(repository: Path, site: Path) -> None:
    """ls, schema, validate, show, search, the docs, and the life of an adapter: `installed.py`."""
    done = child(["-m", "pytest", "-q", "-p", "no:cacheprovider", INSTALLED], repository, site)
    assert passed(done) >= INSTALLED.read_text(encoding="utf-8").count("\ndef test_")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VARIANT, ":5: modules[0].feature_map: unknown kind 'sine'; valid names: "),
        (SPACE, ":1: modules[0].templates.a.gate[1]: unknown kind 'length'; valid names: "),
        (
            VARIANT.replace("sine", "elu_"),
            ":5: modules[0].feature_map: unknown kind 'elu_'; did you mean 'elu'?",
        ),
    ],
)
def test_without_it_the_kind_is_unknown(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    done = run(capsys, "validate", path)
    assert done.code == 2
    assert done.err.startswith(f"error: {path}{message}")
    assert done.err.endswith(" (kinds come from installed packages)\n")
    assert done.err.count("\n") == 1


def test_without_it_an_adapter_that_uses_it_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    ctxpeft.attach(model, "prefix-tuning-plus", seed=0).save(tmp_path)
    file = tmp_path / "variant.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("kind: elu", "kind: sine"), encoding="utf-8")
    with pytest.raises(AdapterError, match=r"variant\.yaml:\d+: .*unknown kind 'sine'; .*installed packages"):
        ctxpeft.load(tiny_model(), tmp_path)


def test_a_package_that_does_not_import(source: Path, tmp_path: Path) -> None:
    broken = renamed(source, tmp_path / "source", "broken")
    (broken / "ctxpeft_broken" / "sine.py").unlink()
    install(broken, tmp_path / "site")
    done = child(["-m", "ctxpeft.cli", "ls", "blocks"], tmp_path, tmp_path / "site")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the block 'feature_map.sine' (ctxpeft_broken.sine:Sine of ctxpeft-broken) cannot be imported: "
        "ModuleNotFoundError: No module named 'ctxpeft_broken.sine'\n"
    )


def test_two_packages_with_one_kind(source: Path, site: Path, tmp_path: Path) -> None:
    rival = renamed(source, tmp_path / "source", "rival")
    install(rival, tmp_path / "site")
    file = tmp_path / "variant.yaml"
    file.write_text(VARIANT, encoding="utf-8")
    done = child(["-m", "ctxpeft.cli", "validate", file], tmp_path, site, tmp_path / "site")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: two installed packages register the block 'feature_map.sine': "
        "ctxpeft_example.sine:Sine of ctxpeft-example and ctxpeft_rival.sine:Sine of ctxpeft-rival; "
        "uninstall one of them or rename its kind\n"
    )


def test_it_uses_documented_names_only(repository: Path) -> None:
    """What the example imports from ctxpeft stands in the reference."""
    documented = {
        name
        for page in (repository / "docs").rglob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    used = {
        (node.module, alias.name)
        for file in EXAMPLE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ctxpeft.")
        for alias in node.names
    }
    assert used
    assert {f"{module}.{name}" for module, name in used if module not in documented} <= documented


def test_the_recipe_shows_every_file(repository: Path) -> None:
    page = (repository / "docs" / "recipes" / "add-a-block.md").read_text("utf-8")
    files = [f for f in EXAMPLE.rglob("*") if f.suffix in {".py", ".toml"} and f.name != "__init__.py"]
    assert len(files) == 4
    assert all(f.read_text("utf-8") in page for f in files)

"""The distributions: what the wheel and the sdist hold, and that the wheel works away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ctxpeft.shipped import shipped_names


@pytest.fixture(scope="module")
def distributions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that is built from it; without network, in this environment."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(repository)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def wheel_of(folder: Path) -> Path:
    """The one wheel of a folder."""
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_nothing_else(distributions: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel_of(distributions)).namelist())
    for kind in ("variants", "search"):
        assert {f"ctxpeft/_shipped/{kind}/{name}.yaml" for name in shipped_names(kind)} <= names
    schemas = {f"ctxpeft/_shipped/docs/schema/{name}.json" for name in ("variant", "space")}
    assert {*schemas, "ctxpeft/py.typed", "ctxpeft/data/ctxpeft-mini/model.safetensors"} <= names
    listed = subprocess.run(["git", "ls-files", "ctxpeft"], cwd=repository, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        assert {name for name in listed.stdout.splitlines() if (repository / name).exists()} <= names
    assert {name.split("/")[0].rpartition("-")[0] or name.split("/")[0] for name in names} <= {
        "ctxpeft",
        next(name for name in names if name.endswith("/METADATA")).split("/")[0].rpartition("-")[0],
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".log", ".db"))]


def test_the_sdist_can_be_tested(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "constraints.txt",
        "tests/conftest.py",
        "docs/hooks.py",
        "scripts/make_venv.sh",
    } <= names
    assert {"LICENSE", "README.md", "CITATION.cff", ".ci/run"} <= names


@pytest.mark.slow
def test_the_wheel_works_elsewhere(distributions: Path, repository: Path, tmp_path: Path) -> None:
    """Unpacked by pip into a folder of its own, used from an empty one; `make dist` makes an environment of its own."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, str(wheel_of(distributions))], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, str(repository / "scripts" / "use_installed.py"), str(site)],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok: ") >= 10

"""The repository keeps its promises: pinned versions, one way to install, nothing of one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ctxpeft
from tests.mutants import MUTANTS
from tests.mutation import main, stale_edits

MACHINE = re.compile(r"(^|[^a-zA-Z.])/(work|farm|root)/")


def pins(repository: Path, file: str = "constraints.txt") -> dict[str, Version]:
    lines = (repository / file).read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in found}


def requirements(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = project["dependencies"] + [text for name in extras for text in extras[name]]
    return [r for r in map(Requirement, texts) if r.name != project["name"]]


def test_every_dependency_is_pinned_within_its_bounds(repository: Path) -> None:
    known = pins(repository)
    for requirement in requirements(repository):
        version = known[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_torch_is_pinned_exactly_and_publicly(repository: Path) -> None:
    assert "+" not in str(pins(repository)["torch"])


def test_every_install_uses_the_constraints(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    assert re.search(r"^PIP := .*--constraint constraints\.txt$", makefile, re.MULTILINE)
    assert "pip install" not in makefile.split("PIP :=")[1].split("\n", 1)[1]


def test_no_path_of_one_machine(repository: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        file = repository / name
        if file.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".cff"} and file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            found = None if file == Path(__file__) else MACHINE.search(text)
            assert found is None, f"{name}: {found}"


def test_the_workflow_names_nothing_twice(repository: Path) -> None:
    """YAML lets a key come twice and forgets the first; GitHub refuses such a file."""

    def twice(node: yaml.Node) -> list[str]:
        if isinstance(node, yaml.SequenceNode):
            return [name for item in node.value for name in twice(item)]
        if not isinstance(node, yaml.MappingNode):
            return []
        names = [key.value for key, _ in node.value]
        below = [name for _, value in node.value for name in twice(value)]
        return [name for name in set(names) if names.count(name) > 1] + below

    for file in (repository / ".github" / "workflows").glob("*.yml"):
        assert not twice(yaml.compose(file.read_text(encoding="utf-8"))), file


def test_every_mutant_applies_to_the_code() -> None:
    """Code that moved on takes its mutants along; `python -m tests.mutation` runs them."""
    assert stale_edits(MUTANTS) == []
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_lower_bound_is_what_the_minimum_job_installs(repository: Path) -> None:
    """`make minimum` tries the oldest versions; what it does not install is pinned to what the other jobs install."""
    oldest, newest = pins(repository, "constraints-minimum.txt"), pins(repository)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for text in project["dependencies"] + [text for texts in extras for text in texts]:
        requirement = Requirement(text)
        if requirement.name in (project["name"], "types-PyYAML"):  # stubs: any version
            continue
        (bound,) = requirement.specifier
        assert bound.operator == ">=", text
        name = canonicalize_name(requirement.name)
        assert Version(bound.version) == oldest.get(name, newest[name]), text


def test_the_minimum_job_installs_the_extras_it_can(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    script = (repository / "scripts" / "check_minimum.sh").read_text()
    (named,) = re.findall(r"--editable '\.\[(.*?)\]'", script)
    assert set(extras) - set(named.split(",")) == {"dev", "trl", "eval", "quant"}
    tools = {Requirement(text).name for text in extras["dev"]} - {"ctxpeft"}
    (tail,) = re.findall(r"--editable .*\\\n(.*)\n", script)
    assert set(tail.split()) == tools
    assert set(re.findall(r"\$venv/bin/(?!python)([\w-]+)", script)) == {
        "ruff",
        "mypy",
        "mkdocs",
        "pre-commit",
    }
    for path in re.findall(r"tests/\S+", script):
        assert (repository / path).exists(), path


def test_the_version_is_the_same_everywhere(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert project["version"] == ctxpeft.__version__ == citation["version"]
    assert project["license"] == citation["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_workflow_does_what_the_makefile_does(repository: Path) -> None:
    """The public CI runs .ci/run on every Python that the classifiers claim, and every other job of the Makefile."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    claimed = [c.rpartition(" ")[2] for c in project["classifiers"] if ":: Python ::" in c]
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "ci.yml").read_text())
    jobs = workflow["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == claimed
    commands = [
        step["run"].partition(" #")[0] for job in jobs.values() for step in job["steps"] if "run" in step
    ]
    assert {".ci/run", "make docs", "make integrations", "make minimum", "make dist"} <= set(commands)
    targets = re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    assert {c.split()[1] for c in commands if re.fullmatch(r"make [a-z]+", c)} <= set(targets)


def test_words_that_fit_no_mutant_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["nosuch", "word"])
    assert error.value.code == 2
    assert capsys.readouterr().err == "no mutant's name contains 'nosuch' or 'word'\n"

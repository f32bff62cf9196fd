"""What notebooks show, and the tutorial, which runs."""

from __future__ import annotations

import importlib.util
import json
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ctxpeft
from ctxpeft import Variant
from ctxpeft.analysis.comparison import Comparison, Entry
from ctxpeft.analysis.curve import Curve
from ctxpeft.analysis.diagnose import Diagnosis
from ctxpeft.analysis.statistics import Interval
from ctxpeft.shipped import shipped_names
from ctxpeft.testing.tiny import tiny_model

EVIL = "<script>alert(1)</script>"


class Cells(HTMLParser):
    """The text of every cell, and whether every tag is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "br":
            return
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.mark.parametrize("name", shipped_names("variants"))
def test_a_variant_says_what_it_is(name: str) -> None:
    variant = ctxpeft.load_variant(name)
    assert eval(repr(variant), {"Variant": Variant}) == variant
    assert str(variant).startswith(f"{name}: ")
    seen = Cells(variant._repr_html_())
    assert "equation" in seen.cells
    assert variant.source in seen.cells
    assert "script" not in seen.tags


def test_nothing_of_a_variant_is_markup() -> None:
    module = {"placement": "outside", "memory": {"kind": "matrix"}, "feature_map": {"kind": "elu"}}
    variant = ctxpeft.load_variant({"name": "x", "title": EVIL, "source": EVIL, "modules": [module]})
    model = tiny_model("llama")
    for shown in (variant, ctxpeft.attach(model, variant)):
        seen = Cells(shown._repr_html_())
        assert seen.tags <= {"p", "b", "table", "tbody", "tr", "th", "td", "br", "details", "summary", "pre"}


@pytest.mark.parametrize("name", ["prefix-tuning-plus", "prefix-tuning-mlp", "lora-qv"])
def test_a_handle_says_where_it_is_and_how_large(name: str) -> None:
    model = tiny_model("llama")
    handle = ctxpeft.attach(model, name, seed=0)
    assert handle.variant.name in repr(handle) or handle.variant.title in repr(handle)
    cells = Cells(handle._repr_html_()).cells
    (trained,) = (cell for cell in cells if cell.startswith(f"{handle.num_parameters():,} parameters ("))
    base = sum(p.numel() for p in model.parameters()) - handle.num_parameters()
    assert trained.endswith(f" of the base's {base:,})") or name == "lora-qv"
    folded = handle.num_parameters("deployed") != handle.num_parameters()
    assert ("deployed" in cells) == folded
    handle.detach()
    assert "detached" in repr(handle)
    assert "detached" in handle._repr_html_()


def interval(value: float) -> Interval:
    """A narrow interval around a value."""
    return Interval(mean=value, low=value - 0.1, high=value + 0.1, p=0.5)


@pytest.fixture
def comparison() -> Comparison:
    """Two rows that nobody measured."""
    about = {"trainable": 1234, "deployed": 1234, "learning_rate": 1e-3, "values": [0.5], "sd": None}
    same = {"mean": 0.5, "interval": interval(0.5), "seconds": 1.0, "metrics": {"accuracy": 0.5}}
    entries = [
        Entry(name="one", fingerprint="1", **about, **same),
        Entry(name="two", fingerprint="2", **about, **same, difference=interval(0.0), adjusted=0.5),
    ]
    return Comparison("model", "task", "labels", "accuracy", True, [0], 3, 9, 9, 100, False, entries, [EVIL])


def test_a_comparison_is_a_table(comparison: Comparison) -> None:
    assert repr(comparison) == "<comparison of one, two on task: test accuracy, seeds [0]>"
    assert str(comparison).startswith("# task on model\n")
    seen = Cells(comparison._repr_html_())
    assert seen.tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert seen.cells.count("1,234") == 4
    assert "not significant" in seen.cells


def test_a_curve_is_a_table(comparison: Comparison) -> None:
    curve = Curve.of("examples", {1: comparison, 2: comparison})
    assert repr(curve) == "<curve of one, two by examples: [1, 2]>"
    assert str(curve) == curve.markdown()
    seen = Cells(curve._repr_html_())
    assert seen.cells[:4] == ["variant", "trainable", "1", "2"]
    assert len(seen.cells) == 12


def test_a_diagnosis_is_a_table() -> None:
    found = Diagnosis("dilution", "What it is.", ("adapter", "rho"), ((f"a|{EVIL}", 0.123456), ("b", None)))
    assert repr(found) == "<diagnosis dilution: 2 rows of adapter, rho>"
    assert "a\\|<script>" in str(found)
    seen = Cells(found._repr_html_())
    assert seen.cells == ["adapter", "rho", f"a|{EVIL}", "0.1235", "b", ""]
    assert "script" not in seen.tags


@pytest.fixture(scope="module")
def runner(repository: Path) -> ModuleType:
    """scripts/run_notebook.py."""
    spec = importlib.util.spec_from_file_location("run_notebook", repository / "scripts" / "run_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tutorial_is_a_notebook(repository: Path) -> None:
    """What nbformat 4.5 asks for, shown with its outputs, with links that lead somewhere."""
    notebook = json.loads((repository / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell["outputs"]) for cell in code) > 7
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        for link in [part.split(")")[0] for part in text.split("](")[1:]]:
            assert (repository / "docs" / link).is_file(), link


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs(repository: Path, runner: ModuleType) -> None:
    notebook = json.loads((repository / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    assert runner.kinds(runner.run(notebook)) == runner.kinds(notebook)


def test_a_cell_that_raises_is_told(runner: ModuleType) -> None:
    cell = {"cell_type": "code", "source": ["x = 1\n", "x / 0"], "outputs": []}
    with pytest.raises(RuntimeError, match=r"cell 1:\nx = 1\nx / 0\n[\s\S]*ZeroDivisionError"):
        runner.run({"cells": [cell]})
    (shown,) = runner.run({"cells": [{**cell, "source": ["x = 2\n", "print(x)\n", "x"]}]})["cells"]
    assert [output["output_type"] for output in shown["outputs"]] == ["stream", "execute_result"]
    assert shown["outputs"][1]["data"] == {"text/plain": ["2"]}

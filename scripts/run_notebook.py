"""Run a notebook's cells in this process, as Jupyter would show them, and write what they printed into the file.

python scripts/run_notebook.py docs/tutorial.ipynb [--check]

Cells are plain Python (no magics). What a cell prints and the value of its last expression become its outputs. With
--check nothing is written; it fails where a cell raises, or where its kinds of output are not those in the file.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from ctxpeft.files import write_text

REPRESENTATIONS = {"text/html": "_repr_html_", "text/markdown": "_repr_markdown_"}


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with new outputs. Raises RuntimeError, with cell and traceback, where a cell raises."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = outputs_of("".join(cell["source"]), scope, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def outputs_of(source: str, scope: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What one cell prints and, last, what it is."""
    name = f"cell {count}"
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    shown = last is not None and not source.rstrip().endswith(";")
    printed, value = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, name, "exec"), scope)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval"), scope)
    except Exception:
        raise RuntimeError(f"{name}:\n{source}\n\n{traceback.format_exc()}") from None
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if shown and value is not None:
        result = {"data": data_of(value), "execution_count": count, "metadata": {}}
        outputs.append({**result, "output_type": "execute_result"})
    return outputs


def data_of(value: Any) -> dict[str, Any]:
    """A value in every representation it has."""
    found: dict[str, Any] = {}
    for kind, method in REPRESENTATIONS.items():
        if hasattr(type(value), method):
            found[kind] = getattr(value, method)().splitlines(keepends=True)
    return {**found, "text/plain": repr(value).splitlines(keepends=True)}


def kinds(notebook: dict[str, Any]) -> list[list[list[str]]]:
    """Of every code cell the kinds of its outputs: what they are, without what they say."""
    return [
        [[output["output_type"], *sorted(output.get("data", {}))] for output in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def main(argv: list[str]) -> int:
    """0 where every cell ran and, with --check, gave what the file shows."""
    check = "--check" in argv
    (file,) = (Path(item) for item in argv if item != "--check")
    before = json.loads(file.read_text(encoding="utf-8"))
    try:
        after = run(before)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    if not check:
        write_text(file, json.dumps(after, indent=1, ensure_ascii=False) + "\n")
    elif kinds(after) != kinds(before):
        print(f"{file}: a cell shows something else: run {Path(__file__).name} and commit", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

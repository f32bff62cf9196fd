"""The standard library's source files, and the docstrings in them."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Third-party code that lives under the standard library's folder.
NOT_STDLIB = ("site-packages", "dist-packages", "_bundled", "__pycache__")

#: Test packages inside packages, and build-dependent modules: no text of the library itself.
TEST_FOLDERS = ("test", "tests", "idle_test")


@dataclass(frozen=True)
class SourceFile:
    """One module: its dotted name and the text of its file."""

    module: str
    text: str

    @property
    def is_test(self) -> bool:
        """Whether the module belongs to a test package (the helpers of `unittest` do not)."""
        return any(part in TEST_FOLDERS for part in self.module.split("."))


@dataclass(frozen=True)
class Docstring:
    """One docstring: where it stands, what it documents (`module | class | function | method`), its clean text."""

    module: str
    name: str
    kind: str
    text: str


def stdlib_folder() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def source_files(folder: Path | None = None) -> Iterator[SourceFile]:
    """Every readable module below `folder` (default: the running standard library), in order of name."""
    root = folder or stdlib_folder()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part in NOT_STDLIB for part in parts) or parts[0].startswith("_sysconfigdata"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield SourceFile(".".join(parts[:-1] if parts[-1] == "__init__" else parts), text)


def parse(source: SourceFile) -> ast.Module | None:
    """The syntax tree of a module, or None where this interpreter cannot parse it (bad test files, old syntax)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source.text)
        except (SyntaxError, ValueError):
            return None


def docstrings(source: SourceFile) -> Iterator[Docstring]:
    """The docstrings of a module, in order of source, cleaned of indentation as `inspect.cleandoc` does."""
    tree = parse(source)
    if tree is not None:
        yield from _walk(tree, source.module, "", "module")


def _walk(node: ast.AST, module: str, prefix: str, kind: str) -> Iterator[Docstring]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield Docstring(module, prefix, kind, text.strip())
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _walk(child, module, _join(prefix, child.name), "class")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = "method" if isinstance(node, ast.ClassDef) else "function"
            yield from _walk(child, module, _join(prefix, child.name), inside)
        elif not isinstance(child, ast.expr):
            yield from _walk_statement(child, node, module, prefix)


def _walk_statement(node: ast.AST, owner: ast.AST, module: str, prefix: str) -> Iterator[Docstring]:
    """Definitions under `if`, `try`, `with`: they belong to the module, class or function around."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _walk(child, module, _join(prefix, child.name), "class")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = "method" if isinstance(owner, ast.ClassDef) else "function"
            yield from _walk(child, module, _join(prefix, child.name), inside)
        elif not isinstance(child, ast.expr):
            yield from _walk_statement(child, owner, module, prefix)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name

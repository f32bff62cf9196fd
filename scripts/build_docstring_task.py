"""Build the docstring-area snapshot from the running interpreter's standard library, or check that it builds the same.

    python -m scripts.build_docstring_task            # writes ctxpeft/data/tasks/docstring-area
    python -m scripts.build_docstring_task --check    # exits 1 where a file would differ

The same version of Python gives the same bytes; another version has other docstrings.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from scripts.docstring_task.snapshot import NAME, snapshot
from scripts.docstring_task.splits import build
from scripts.stdlib_text.source import source_files

FOLDER = Path("ctxpeft/data/tasks") / NAME


def main() -> int:
    """Write the files, or compare them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.build_docstring_task", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if arguments.check:
        built_with = json.loads((arguments.out / "manifest.json").read_text(encoding="utf-8"))["python"]
        if built_with != platform.python_version():
            print(
                f"the snapshot was built with Python {built_with}, this is {platform.python_version()}: not compared"
            )
            return 0
    files = snapshot(build(list(source_files())))
    if arguments.check:
        different = [name for name, content in files.items() if not _same(arguments.out / name, content)]
        print(f"different: {', '.join(different)}" if different else f"{len(files)} files are the same")
        return 1 if different else 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (arguments.out / name).write_bytes(content)
        print(f"{name}: {len(content):,} bytes")
    return 0


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


if __name__ == "__main__":
    sys.exit(main())

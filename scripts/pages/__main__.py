"""Fill the generated parts of the pages in place: `python -m scripts.pages`, or `--check`, which writes nothing."""

from __future__ import annotations

import argparse
import sys

from scripts.pages.marks import REPOSITORY, written


def main() -> int:
    """Write the pages that are behind; with --check name them and return 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is behind")
    check = parser.parse_args().check
    behind = []
    for page in sorted((REPOSITORY / "docs").rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = written(before)
        if before != after:
            behind.append(str(page.relative_to(REPOSITORY)))
            if not check:
                page.write_text(after, encoding="utf-8")
    print("\n".join(behind) if behind else "every page is current")
    return 1 if check and behind else 0


if __name__ == "__main__":
    sys.exit(main())

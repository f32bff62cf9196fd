"""What is claimed about speed and size, measured: `make bench`.

    python -m benchmarks [SECTION...] [--full] [--model M] [--device D] [--attention A] [--rounds N] [--out DIR]

Prints a table after another, keeps them in DIR/SECTION.json, and writes docs/performance.md from all sections that have
been measured. Stopped before its end, it keeps the tables that are complete; `page` as
the only section writes the page without measuring.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import adapters, answers, cold, decode, profile, scaling, size, step
from benchmarks.allocator import keep_freed
from benchmarks.environment import environment
from benchmarks.grids import grid
from benchmarks.hosts import SHAPES
from benchmarks.page import write
from benchmarks.settings import Settings, full, quick
from ctxpeft.files import replacing

SECTIONS: dict[str, Callable[[Settings], Iterator[dict[str, Any]]]] = {
    "step": step.run,
    "decode": decode.run,
    "prefill": decode.run_prefill,
    "size": size.run,
    "answers": answers.run,
    "adapters": adapters.run,
    "scaling": scaling.run,
    "profile": profile.run,
    "cold": cold.run,
}
PAGE = Path("docs/performance.md")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 fine, 2 a mistake, 130 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all if none"
    )
    parser.add_argument("--full", action="store_true", help="the whole grid: hours on a CPU")
    parser.add_argument("--model", help=f"a folder, or one of {', '.join(SHAPES)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is one")
    parser.add_argument("--attention", default="sdpa", help="transformers' name of the backend")
    parser.add_argument("--rounds", type=int, help="2 or more")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    parser.add_argument("--out", type=Path, default=PAGE.with_suffix(""), help="where the JSON goes")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that is written")
    given = parser.parse_args(argv)
    if given.sections == ["page"]:
        return _page(given.page, given.out)
    wrong = [name for name in given.sections if name not in SECTIONS]
    if wrong:
        parser.error(f"no section is called '{wrong[0]}': they are {', '.join(SECTIONS)}")
    if given.model and given.model not in SHAPES and not Path(given.model, "config.json").is_file():
        parser.error(f"--model: '{given.model}' is no folder of a model, and no shape ({', '.join(SHAPES)})")
    if given.rounds is not None and given.rounds < 2:
        parser.error("--rounds: 2 or more, or there is no spread")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is none")
    torch.set_num_threads(given.threads)
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    settings = (full if given.full else quick)(device, given.model)
    settings = dataclasses.replace(settings, attention=given.attention)
    if given.rounds is not None:
        settings = dataclasses.replace(settings, rounds=given.rounds)
    try:
        measure(given.sections or list(SECTIONS), settings, given.out)
    except KeyboardInterrupt:
        print("stopped; complete tables are kept", file=sys.stderr)
        return 130
    return _page(given.page, given.out)


def _page(page: Path, out: Path) -> int:
    print(write(page, out))
    return 0


def measure(sections: list[str], settings: Settings, out: Path) -> None:
    """Run sections; each leaves `SECTION.json` in `out`, written again after every table."""
    out.mkdir(parents=True, exist_ok=True)
    for name in sections:
        begin, found = time.perf_counter(), environment(settings.device)
        record: dict[str, Any] = {
            "section": name,
            "environment": found,
            "attention": settings.attention,
            "tables": [],
        }
        for table in SECTIONS[name](settings):
            record["tables"].append(table)
            found["seconds"] = round(time.perf_counter() - begin)
            print(grid(table).text(), end="\n\n", flush=True)
            with replacing(out / f"{name}.json") as path:
                path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    keep_freed()
    sys.exit(main())

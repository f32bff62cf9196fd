r"""Measure the steps of the construction on trained adapters, and draw what each changes.

    ctxpeft compare --data train.csv --test test.csv --seeds 1 --steps 80 --out runs/walk \
        --variants prefix-tuning,construction-1-moved-out,construction-2-kernelised,construction-3-free-matrix,\
prefix-tuning-plus max_length=96
    python -m scripts.guide_figures runs/walk

writes docs/guide/figures/*.svg and, beside them, the numbers that are drawn, figures.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctxpeft.files import write_json
from scripts.guide_figures.draw import DRAWINGS, draw
from scripts.guide_figures.measure import measure

OUT = Path("docs/guide/figures")


def main() -> int:
    """Measure and draw; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.guide_figures", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of the comparison")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    found = measure(arguments.runs)
    write_json(arguments.out / "figures.json", found)
    for name in DRAWINGS:
        draw(name, found, arguments.out / f"{name}.svg")
        print(arguments.out / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.reliability`: the figures of docs/reliability.md, measured.

    python -m tests.reliability                         every section at the size of the page, printed
    python -m tests.reliability specs --examples 100000 one of them
    python -m tests.reliability --write                 put into the page

Exit code 1 where something escaped, was half written, or was accepted that should not have been.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tests.reliability import chaos, data, folders, saves, specs, training
from tests.search.postgres import programs, served

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reliability.md"
ELSEWHERE = {"chaos": DOCS / "recipes" / "search-on-many-machines.md"}
Section = Callable[[argparse.Namespace, Path], tuple[str, bool]]


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], help="all if left out")
    parser.add_argument("--examples", type=int, default=100_000, help="inputs of the fuzzing, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzing and of the kills")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large file")
    parser.add_argument(
        "--kills",
        type=int,
        default=200,
        help="at random moments, for each kind of save; of workers, a tenth of it",
    )
    parser.add_argument("--workers", type=int, default=4, help="of the study that is disturbed")
    parser.add_argument("--trials", type=int, default=30, help="of the study that is disturbed")
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the sections; 0 if everything held."""
    options = parser().parse_args(arguments)
    warnings.simplefilter("ignore")
    held = True
    for name in options.sections or SECTIONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            text, fine = SECTIONS[name](options, Path(folder))
        held = held and fine
        print(text)
        if options.write:
            write(name, text)
    return 0 if held else 1


def write(name: str, text: str) -> None:
    """Put a table between the marks of its section."""
    marks = re.compile(
        rf"(<!-- written by: python -m tests\.reliability {name}\b[^>]*-->\n).*?(<!-- end -->)", re.DOTALL
    )
    path = ELSEWHERE.get(name, PAGE)
    page, count = marks.subn(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{path} has no place for '{name}'")
    path.write_text(page, encoding="utf-8")


def fuzzed(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """Inputs of every kind, and what became of them."""
    targets = specs.targets()
    rows, escaped = [], 0
    for target in targets:
        print(f"  {target.name}", file=sys.stderr, flush=True)
        try:
            tally = specs.fuzz(target, options.examples // len(targets), folder, options.seed)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            notes = "\n".join(getattr(error, "__notes__", []))
            print(f"  escaped: {type(error).__name__}: {error}\n{notes}", file=sys.stderr, flush=True)
            rows.append([target.name, "", "", "", "1", ""])
            escaped += 1
            continue
        rows.append(
            [target.name, *_numbers(tally.inputs, tally.accepted, tally.refused, 0), f"{tally.slowest:.2f} s"]
        )
    headers = ["what is drawn", "inputs", "accepted", "refused in one sentence", "escaped", "slowest"]
    return f"{_stamp()}\n\n{_table(headers, rows)}", not escaped


def strangers(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """Folders of every kind, and what became of them."""
    result = folders.run(folder)
    fine = result["unchanged"] and not result["executed"] and result["peak_growth"] < folders.GROWTH
    rows = []
    for family, row in result["rows"].items():
        fine = fine and not row["escaped"] and not row["acts"]
        fine = fine and (row["loaded"] == 0 or family in folders.HARMLESS)
        counts = _numbers(
            row["folders"], row["refused"], row["loaded"], len(row["escaped"]), len(row["acts"])
        )
        rows.append([family, *counts])
    headers = ["folders with", "folders", "refused in one sentence", "loaded", "escaped", "acts"]
    model = "as it was" if result["unchanged"] else "changed"
    executed = "something was executed" if result["executed"] else "nothing was executed"
    told = (
        f"The model was {model} afterwards, {executed}, and all folders together took at most "
        f"{result['peak_growth'] / 2**20:.0f} MiB of memory; the largest files have {folders.GIANT / 2**20:.0f} MiB."
    )
    return f"{_stamp()}\n\n{_table(headers, rows)}\n\n{told}", fine


def large(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """A large file, step by step, and every kind of broken one."""
    path = folder / "large.csv"
    data.make_csv(path, options.rows)
    size = path.stat().st_size
    rows = [
        [step["step"], f"{step['seconds']:.1f} s", f"{step['bytes'] / 2**20:.0f} MiB"]
        for step in data.measure(path)
    ]
    told = data.broken(folder)
    sentences = "\n".join(f"- {name}: `{sentence}`" for name, sentence in told)
    text = (
        f"{_stamp()}\n\nA CSV file of {options.rows:,} rows, {size / 2**20:.0f} MiB:\n\n"
        f"{_table(['step', 'seconds', 'memory in all'], rows)}\n\n{len(told)} kinds of broken files:\n\n{sentences}"
    )
    return text, all(sentence != "accepted" for _, sentence in told)


def killed(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """Every kind of save, killed, and on a full disk."""
    rows, fine = [], True
    for number, target in enumerate(saves.targets()):
        print(f"  {target.name}", file=sys.stderr, flush=True)
        (folder / str(number)).mkdir()
        (folder / f"full-{number}").mkdir()
        tally = saves.cut(target, folder / str(number), options.kills, options.seed)
        told, kept, left = saves.full(target, folder / f"full-{number}", 300)
        fine = fine and not tally.half and kept and not left and "File too large" in told
        full = "said so, the old is kept" if kept and not left else f"{told}; left {left}"
        counts = _numbers(
            tally.steps, tally.twice, options.kills, tally.old, tally.new, tally.neither, tally.half
        )
        rows.append([target.name, *counts, full])
    headers = [
        "what is saved",
        "killed at each step",
        "and at each of the next save",
        "at random",
        "then the old",
        "the new",
        "none",
        "half",
        "full disk",
    ]
    return f"{_stamp()}\n\n{_table(headers, rows)}", fine


def interrupted(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """Training that is killed and continued."""
    tallies = training.measure(folder, options.kills, options.seed)
    rows = [
        [t.name, *_numbers(t.steps, t.kills, t.continued, t.anew, t.finished, len(t.faults))] for t in tallies
    ]
    headers = [
        "what is trained",
        "killed at each step",
        "at random",
        "then continued from a complete checkpoint",
        "begun anew",
        "finished already",
        "from half of one, or with another result",
    ]
    told = "".join(f"\n- {fault}" for tally in tallies for fault in tally.faults)
    return f"{_stamp()}\n\n{_table(headers, rows)}\n{told}".rstrip(), not told


def disturbed(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """A study on PostgreSQL, its workers killed and its server restarted."""
    found = programs()
    if found is None:
        return "not run: PostgreSQL is not installed (Debian: apt-get install postgresql)", False
    data = ["--model", "ctxpeft-mini", "--task", "docstring-area", "data.validation_limit=60"]
    with served(found) as server:
        tally = chaos.run(
            server,
            folder,
            data,
            workers=options.workers,
            trials=options.trials,
            kills=options.kills // 10,
            seed=options.seed,
        )
    rows = [
        ["workers", f"{tally.workers}"],
        ["workers killed (in the midst of a trial)", f"{tally.kills} ({tally.in_a_trial})"],
        ["restarts of the server", f"{tally.restarts}"],
        ["seconds", f"{tally.seconds:.0f}"],
        ["designs asked for, tried", f"{tally.asked}, {tally.tried}"],
        ["trials in the study", f"{tally.trials}"],
        *([f"trials {name}", f"{count}"] for name, count in sorted(tally.outcomes.items())),
        ["interrupted trials that were tried again (twice)", f"{tally.retried} ({tally.retried_twice})"],
        ["faults", f"{len(tally.faults)}"],
    ]
    told = [f"{count} {reason}" for reason, count in tally.reasons.items()] + tally.faults
    listed = "".join(f"\n- {line}" for line in told)
    return f"{_stamp()}\n\n{_table(['a disturbed study', ''], rows)}\n{listed}".rstrip(), not tally.faults


def _numbers(*values: int) -> list[str]:
    return [f"{value:,}" for value in values]


def _table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _stamp() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "safetensors", "pydantic", "pyyaml"))
    return f"{datetime.date.today().isoformat()}; Python {sys.version.split()[0]}, {packages}."


SECTIONS: dict[str, Section] = {
    "specs": fuzzed,
    "folders": strangers,
    "data": large,
    "saves": killed,
    "training": interrupted,
    "chaos": disturbed,
}

if __name__ == "__main__":
    sys.exit(main())

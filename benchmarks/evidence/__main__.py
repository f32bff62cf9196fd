"""The tables of docs/evidence.

    python -m benchmarks.evidence list
    python -m benchmarks.evidence run [TABLE...] --model M --data-root D --out DIR [--encoder E] [--size default|equal]
                                      [--set key=value ...]
    python -m benchmarks.evidence write --out DIR [--docs docs/evidence]
    python -m benchmarks.evidence pack TABLE... --out DIR --archive FILE.tar.xz
    python -m benchmarks.evidence unpack FILE.tar.xz... --out DIR

`run` may be stopped at any time and goes on where it was; finished tables are only read. `write` turns what has
finished into docs/evidence/results and the page. `pack` keeps the finished runs without their weights, and `unpack`
puts them where `run` goes on with them, on another machine too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from benchmarks.evidence.archive import pack, unpack
from benchmarks.evidence.tables import FILE, Plan, Size, Table, load_plan
from ctxpeft.cli._overrides import parse_overrides
from ctxpeft.errors import CtxpeftError


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 fine, 2 a mistake, 130 stopped and saved."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument(
        "--plan", type=Path, default=FILE, help="tables of one's own, as tables.yaml says them"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    runner = commands.add_parser("run")
    runner.add_argument("tables", nargs="*", metavar="TABLE", help="all when none is named")
    runner.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="steps, seeds, task settings"
    )
    runner.add_argument(
        "--size", choices=get_args(Size), help="that size alone: both may run at once, into the same folder"
    )
    runner.add_argument("--model", help="a causal language model")
    runner.add_argument("--encoder", help="an encoder, for the table of that name")
    runner.add_argument("--data-root", type=Path, required=True)
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument(
        "--dtype", default="float32", help="of the base: bfloat16 on a GPU; adapters are float32"
    )
    runner.add_argument("--threads", type=int, default=1, help="of torch: part of what makes a run identical")
    writer = commands.add_parser("write")
    writer.add_argument("--out", type=Path, required=True)
    writer.add_argument("--docs", type=Path, default=Path("docs/evidence"))
    packer = commands.add_parser("pack")
    packer.add_argument("tables", nargs="+", metavar="TABLE")
    packer.add_argument("--out", type=Path, required=True)
    packer.add_argument("--archive", type=Path, required=True)
    unpacker = commands.add_parser("unpack")
    unpacker.add_argument("archives", nargs="+", type=Path, metavar="FILE")
    unpacker.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    try:
        plan = load_plan(given.plan)
        if given.command == "list":
            _list(plan)
        elif given.command == "write":
            _write(plan, given.out, given.docs)
        elif given.command == "pack":
            print(f"{given.archive}: {pack(given.out, plan.chosen(given.tables), given.archive)} runs")
        elif given.command == "unpack":
            for archive in given.archives:
                print(f"{archive}: {unpack(archive, given.out)} runs are new in {given.out}")
        else:
            _run(plan, given)
    except CtxpeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was finished is saved, and the same command goes on from it", file=sys.stderr)
        return 130
    return 0


def _list(plan: Plan) -> None:
    for table in plan.tables.values():
        sizes = len(table.per_class or (table.behind.words if table.behind else [0]))
        runs = sum(len(table.entries(size)) * (table.seeds + 4) * sizes for size in table.sizes)
        print(f"{table.name:<16}about {runs:>4} runs of {table.steps} steps   {table.title}")


def _run(plan: Plan, given: Any) -> None:
    import torch

    from benchmarks.evidence.checks import check
    from benchmarks.evidence.runs import Log, run_table

    torch.set_num_threads(given.threads)
    overrides = dict(parse_overrides(given.set))
    log = Log()
    chosen: list[tuple[Table, str]] = []
    for table in plan.chosen(given.tables):
        model = given.encoder if table.encoder else given.model
        if given.size and given.size not in table.sizes:
            if given.tables:
                raise CtxpeftError(
                    f"the table {table.name} has no {given.size} size: {', '.join(table.sizes)}"
                )
        elif model is None:
            option = "--encoder" if table.encoder else "--model"
            if given.tables:
                raise CtxpeftError(f"the table {table.name} needs {option}")
            log.note(f"{table.name} is left out: no {option}")
        else:
            sizes = [given.size] if given.size else table.sizes
            chosen.append((table.with_settings(overrides).model_copy(update={"sizes": sizes}), model))
    for table, _ in chosen:
        check(table, given.data_root)
    for table, model in chosen:
        run_table(table, model, given.dtype, given.data_root, given.out, log)


def _write(plan: Plan, out: Path, docs: Path) -> None:
    from benchmarks.evidence.pages import collect, write_page

    for name in collect(out, plan, docs / "results"):
        print(name)
    print(write_page(docs, plan))


if __name__ == "__main__":
    sys.exit(main())

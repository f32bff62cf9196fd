"""`python -m ctxpeft.testing.hosts`: the sweep, its table and its counts."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

from ctxpeft.testing.hosts.family import FAILS
from ctxpeft.testing.hosts.history import changed_since
from ctxpeft.testing.hosts.report import (
    counts,
    differences,
    markdown,
    write_page,
    write_record,
)
from ctxpeft.testing.hosts.run import LIMIT_SECONDS, Family, sweep
from ctxpeft.testing.hosts.subject import MAPPINGS


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep. Exit code 1 with `--check` where a verdict is not the recorded one, or anything fails without."""
    parser = argparse.ArgumentParser(prog="python -m ctxpeft.testing.hosts", description=__doc__)
    parser.add_argument(
        "--families", nargs="*", default=[], help="model types, or mapping/type; all if left out"
    )
    parser.add_argument("--mappings", nargs="*", default=list(MAPPINGS), choices=list(MAPPINGS))
    parser.add_argument(
        "--changed-since", metavar="REF", help="only families recorded otherwise at a git revision"
    )
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds a family may take")
    parser.add_argument("--resume", type=Path, help="a JSON-lines file of results, read and added to")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="record the verdicts, and put the table into a page"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the recorded verdicts instead of a table"
    )
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        return _worker(options.worker)
    families = _chosen(options.families, options.mappings)
    if options.changed_since is not None:
        changed = changed_since(options.changed_since)
        families = [f for f in families if f in changed]
    results = []
    for result in sweep(families, options.jobs, options.resume, options.limit):
        results.append(result)
        states = {k: v["state"] for k, v in result.get("variants", {}).items()}
        print(
            f"{result['mapping']}/{result['model_type']}",
            result.get("error", states),
            file=sys.stderr,
            flush=True,
        )
    if options.check:
        found = differences(results)
        print("\n".join([*found, f"{len(results)} families, {len(found)} differences"]))
        return int(bool(found))
    if options.write is not None:
        write_record(results)
        write_page(options.write, results)
    print(markdown(results))
    print(counts(results))
    return int(any(v["state"] == FAILS for r in results for v in r.get("variants", {}).values()))


def _chosen(names: list[str], mappings: list[str]) -> list[Family]:
    from ctxpeft.testing.hosts.subject import model_types

    every = [(mapping, kind) for mapping in mappings for kind in model_types(mapping)]
    return [f for f in every if not names or f[1] in names or "/".join(f) in names]


def _worker(families: list[str]) -> int:
    warnings.simplefilter("ignore")
    import torch

    from ctxpeft.testing.hosts.family import examine

    torch.set_num_threads(1)
    for family in families:
        mapping, _, model_type = family.partition("/")
        print(json.dumps(examine(mapping, model_type)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

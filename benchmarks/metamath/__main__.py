"""Variants in the table of HF PEFT's method comparison (MetaMathQA to GSM8K on Llama-3.2-3B).

    python -m benchmarks.metamath list
    python -m benchmarks.metamath run EXPERIMENT... --results peft/method_comparison/MetaMathQA/results

An experiment is a folder METHOD/NAME; those that ship lie in benchmarks/metamath/experiments, at rates that were not
tuned: nobody ran them yet. On an L40S a run of 5,000 steps takes PEFT's own methods about twenty minutes. `--set
model_id=... max_steps=...` and data files try it small.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ctxpeft.cli._overrides import parse_overrides
from ctxpeft.errors import CtxpeftError, SpecError, did_you_mean

EXPERIMENTS = Path(__file__).with_name("experiments")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 fine, 2 a mistake, 130 stopped."""
    from benchmarks.metamath.data import GSM8K, METAMATH, WIKI

    parser = argparse.ArgumentParser(prog="python -m benchmarks.metamath", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    runner = commands.add_parser("run")
    runner.add_argument(
        "experiments", nargs="+", metavar="EXPERIMENT", help="METHOD/NAME as `list` says, or a folder"
    )
    runner.add_argument("--results", type=Path, required=True)
    runner.add_argument("--keep", type=Path, help="save the trained adapters here")
    runner.add_argument(
        "--metamath", default=METAMATH, help="a dataset, or JSON Lines with query and response"
    )
    runner.add_argument("--gsm8k", default=GSM8K, help="a dataset, or TRAIN.jsonl,TEST.jsonl")
    runner.add_argument("--wiki", default=WIKI, help="a dataset, or texts")
    runner.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of training_params.json")
    given = parser.parse_args(argv)
    try:
        if given.command == "list":
            print("\n".join(shipped()))
            return 0
        _run(given)
    except CtxpeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; results that were finished are kept", file=sys.stderr)
        return 130
    return 0


def shipped() -> list[str]:
    """The experiments that ship, as METHOD/NAME."""
    return sorted("/".join(file.parts[-3:-1]) for file in EXPERIMENTS.glob("*/*/variant.yaml"))


def _run(given: argparse.Namespace) -> None:
    from benchmarks.metamath.data import Sources
    from benchmarks.metamath.run import run_experiment

    folders = [_folder(name) for name in given.experiments]
    sources = Sources(given.metamath, given.gsm8k, given.wiki)
    for folder in folders:
        keep = given.keep / folder.parent.name / folder.name if given.keep else None
        run_experiment(folder, given.results, sources, dict(parse_overrides(given.set)), _say, keep)


def _folder(name: str) -> Path:
    if name in shipped():
        return EXPERIMENTS / name
    path = Path(name)
    if not path.is_dir():
        raise SpecError(f"no experiment '{name}'{did_you_mean(name, shipped())}")
    return path.absolute()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The command line: prepare, train, decay, export, evaluate, card."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

MODEL_FOLDER = Path("ctxpeft/data/ctxpeft-mini")
AREA_FOLDER = Path("ctxpeft/data/tasks/docstring-area")


def parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    top = argparse.ArgumentParser(prog="python -m scripts.pretrain_mini", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser(
        "prepare", help="collect the text, train the tokenizer, write the token streams"
    )
    prepare.add_argument("--books", type=Path, required=True, help="JSONL of books with title, author, text")
    train = commands.add_parser("train", help="train at a constant rate; resumes where it was killed")
    train.add_argument(
        "--steps", type=int, default=100_000, help="stop at this step (kill it earlier if you like)"
    )
    train.add_argument("--adam-lr", type=float, default=None)
    train.add_argument("--muon-lr", type=float, default=None)
    decay = commands.add_parser(
        "decay", help="take the rate to zero from a checkpoint; windows of twice the length"
    )
    decay.add_argument("--decay-from-checkpoint", type=Path, required=True)
    decay.add_argument("--decay-steps", type=int, required=True)
    decay.add_argument("--from-factor", type=float, default=1.0, help="below 1: shorten a decay under way")
    for command in (train, decay):
        command.add_argument(
            "--name", default=command.prog.split()[-1], help="name of its checkpoint and its log"
        )
        command.add_argument("--no-compile", action="store_true", help="do not use torch.compile")
        command.add_argument("--threads", type=int, default=2)
    export = commands.add_parser("export", help="write a checkpoint as a transformers folder")
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--out", type=Path, default=MODEL_FOLDER)
    evaluate = commands.add_parser("evaluate", help="measure a folder, write evaluation.json and the card")
    evaluate.add_argument("--model", type=Path, default=MODEL_FOLDER)
    evaluate.add_argument("--name", default="decay", help="name of the decay run, for its log")
    evaluate.add_argument(
        "--area", type=Path, default=AREA_FOLDER, help="folder of the docstring-area snapshot"
    )
    evaluate.add_argument(
        "--trec", type=Path, help="folder with train.jsonl and test.jsonl of TREC (optional)"
    )
    card = commands.add_parser("card", help="write README.md again from evaluation.json")
    card.add_argument("--model", type=Path, default=MODEL_FOLDER)
    for command in (prepare, train, decay, export, evaluate):
        command.add_argument("--work", type=Path, default=Path("runs/ctxpeft-mini"), help="folder of the run")
    return top


def main() -> None:
    """Run one subcommand."""
    arguments = parser().parse_args()
    if arguments.command == "prepare":
        from scripts.pretrain_mini.prepare import prepare

        print(json.dumps(prepare(arguments.books, arguments.work), indent=2))
    elif arguments.command == "train":
        from scripts.pretrain_mini.schedule import Schedule
        from scripts.pretrain_mini.train import Recipe, Run, train

        rates = {"adam_lr": arguments.adam_lr, "muon_lr": arguments.muon_lr}
        recipe = Recipe(**{name: rate for name, rate in rates.items() if rate is not None})
        run = Run(
            arguments.work,
            arguments.name,
            arguments.steps,
            compile=not arguments.no_compile,
            threads=arguments.threads,
        )
        print(train(run, recipe, Schedule(recipe.warmup)))
    elif arguments.command == "decay":
        from scripts.pretrain_mini.train import Recipe, Run, decay

        run = Run(
            arguments.work, arguments.name, 0, compile=not arguments.no_compile, threads=arguments.threads
        )
        print(
            decay(
                run, arguments.decay_from_checkpoint, arguments.decay_steps, Recipe(), arguments.from_factor
            )
        )
    elif arguments.command == "export":
        from scripts.pretrain_mini.export import export

        export(arguments.work, arguments.checkpoint, arguments.out)
    else:
        from scripts.pretrain_mini.card import write_card

        if arguments.command == "evaluate":
            from scripts.pretrain_mini.evaluate import evaluate

            evaluate(arguments.model, arguments.work, arguments.name, arguments.area, arguments.trec)
        write_card(arguments.model)


if __name__ == "__main__":
    main()

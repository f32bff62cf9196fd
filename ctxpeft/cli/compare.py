"""`ctxpeft compare`: several variants, the same seeds and data, rates tuned on validation data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli import _output
from ctxpeft.cli._arguments import (
    DATA,
    OUTPUT,
    RUN,
    WHAT,
    DataOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    ModelOption,
    OverridesArgument,
    TaskOption,
    TestOption,
    numbers,
)
from ctxpeft.cli._complete import tasks, variants, variants_with_commas
from ctxpeft.errors import SpecError
from ctxpeft.extras import require

if TYPE_CHECKING:
    from ctxpeft.training import Bench, Method, TrainingConfig


def command(
    variants: Annotated[
        str,
        typer.Option(
            "--variants",
            "-v",
            help="Names or files, comma-separated; the first is the reference.",
            metavar="V1,V2,...",
            rich_help_panel=WHAT,
            autocompletion=variants_with_commas,
        ),
    ],
    overrides: OverridesArgument = None,
    model: ModelOption = "ctxpeft-mini",
    task: TaskOption = None,
    data: DataOption = None,
    test: TestOption = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, max=100, help="Runs a variant.", metavar="N", rich_help_panel=RUN),
    ] = 5,
    lr_sweep: Annotated[
        bool,
        typer.Option(
            "--lr-sweep",
            help="Tune each variant's learning rate on validation data.",
            rich_help_panel=RUN,
        ),
    ] = False,
    sweep_steps: Annotated[
        int | None,
        typer.Option(
            "--sweep-steps",
            min=1,
            help="Length of the sweep's runs.",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Optimiser steps a run.", metavar="N", rich_help_panel=RUN),
    ] = None,
    per_class: Annotated[
        str | None,
        typer.Option(
            "--per-class",
            help="A curve over numbers of training examples per class; every seed draws its own.",
            metavar="N,N,...",
            rich_help_panel=RUN,
        ),
    ] = None,
    ood: Annotated[
        str | None,
        typer.Option(
            "--ood",
            help="Out-of-distribution data to measure on too: a task, or a file.",
            metavar="T|FILE",
            rich_help_panel=DATA,
            autocompletion=tasks,
        ),
    ] = None,
    unrelated: Annotated[
        list[str] | None,
        typer.Option(
            "--unrelated",
            help="Text on which forgetting is measured; repeatable.",
            metavar="FILE",
            rich_help_panel=DATA,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Size every variant to as many trained parameters: a number, or a variant's name.",
            metavar="N|V",
            rich_help_panel=WHAT,
            autocompletion=variants,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write into.", metavar="DIR", rich_help_panel=OUTPUT),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    fresh: FreshOption = False,
) -> None:
    """Compare variants fairly; interrupted or extended, the same command runs only what is missing.

    `none` (the frozen base), `full` (full fine-tuning) and `probe` (a linear probe) may stand among the variants.

    Examples:
      ctxpeft compare --variants prefix-tuning-plus,prefix-tuning,lora-qv --task docstring-area --out runs/compare
      ctxpeft compare -v mine.yaml,lora-qv,none --data train.csv --test test.csv --seeds 3 --lr-sweep --out runs/mine
      ctxpeft compare -v prefix-tuning-plus,lora-qv --task docstring-area --per-class 1,2,4,8,16,32 --out runs/curve
      ctxpeft compare -v prefix-tuning-plus,lora-qv --task docstring-area --unrelated book.txt --out runs/transfer
      ctxpeft compare -v prefix-tuning,prefix-tuning-plus --task docstring-area --steps 200 --dry-run
    """
    from ctxpeft.cli._session import (
        check_variant_name,
        open_bench,
        read_settings,
        task_spec,
        training_config,
    )

    if out is None and not dry_run:
        raise SpecError("--out DIR is needed: the folder the comparison writes into")
    settings = read_settings(overrides)
    if settings.variant:
        raise SpecError("variant settings are for one variant: write a file for each and name the files")
    if "seed" in settings.training:
        raise SpecError("a comparison runs the seeds 0, 1, ...: give --seeds N instead of seed=")
    names = [name.strip() for name in variants.split(",") if name.strip()]
    sized_as = [] if budget is None or budget.isdigit() else [budget]
    for name in [*names, *sized_as]:
        check_variant_name(name)
    config = training_config(settings, **({"steps": steps} if steps else {}))
    sizes = numbers(per_class, "--per-class") if per_class else []
    asked = task_spec(task, data, test, settings)
    require("matplotlib", "plots", "the picture of a comparison")
    from ctxpeft.training import load_method  # from here on torch is imported

    methods = [load_method(name) for name in names]
    for name in sized_as:
        load_method(name)
    bench = open_bench(model, asked, settings, ood, unrelated)
    if budget is not None:
        methods = _sized(bench, names, budget)
    from ctxpeft.analysis.compare import check_comparison, compare

    if dry_run:
        check_comparison(bench, methods, range(seeds), lr_sweep)
        _plan(bench, methods, config, seeds, lr_sweep, json)
        return

    from ctxpeft.analysis.curve import data_curve
    from ctxpeft.analysis.table import footnote, rich_table
    from ctxpeft.training import ConsoleReporter

    reporter = ConsoleReporter()
    for note in bench.notes:
        reporter.note(note)
    options: dict[str, Any] = {
        "seeds": seeds,
        "config": config,
        "lr_sweep": lr_sweep,
        "sweep_steps": sweep_steps,
        "reporter": reporter,
        "fresh": fresh,
    }
    console = _output.stdout()
    if sizes:
        curve = data_curve(bench, methods, out or Path(), sizes, **options)
        if json:
            _output.emit("compare", {**curve.to_dict(), "out": str(out)})
            return
        console.print(curve.markdown(), markup=False)
        console.print(f"Written to {out}: curve.md, curve.json, curve.png, per-class-N/", markup=False)
        return
    result = compare(bench, methods, out or Path(), **options)
    if json:
        _output.emit("compare", {**result.to_dict(), "out": str(out)})
        return
    console.print(rich_table(result))
    console.print(footnote(result), markup=False)
    if result.base:
        console.print((out or Path()).joinpath("transfer.md").read_text(encoding="utf-8"), markup=False)
    console.print(f"Written to {out}: table.md, compare.json, compare.png, runs/", markup=False)


def _sized(bench: Bench, names: list[str], budget: str) -> list[Method]:
    """The methods at the size of the budget; a note each."""
    from ctxpeft.analysis.budget import at_budget
    from ctxpeft.training import count_parameters, load_method

    model = bench.base.model
    wanted = int(budget) if budget.isdigit() else count_parameters(model, load_method(budget))[0]
    if wanted < 1:
        raise SpecError(f"--budget: expected a number of parameters or a variant, found '{budget}'")
    sized = at_budget(model, names, wanted)
    for one in sized:
        _output.note(one.note)
    return [one.method for one in sized]


def _plan(
    bench: Bench, methods: list[Method], config: TrainingConfig, seeds: int, lr_sweep: bool, json: bool
) -> None:
    from ctxpeft.cli._session import task_facts
    from ctxpeft.training import count_parameters

    rows = []
    for method in methods:
        trainable, deployed = count_parameters(bench.base.model, method)
        full = config.resolved(method, len(bench.train))
        rows.append(
            {
                "variant": method.name,
                "trainable": trainable,
                "deployed": deployed,
                "learning_rate": full.learning_rate,
                "runs": (1 if method.name == "none" else seeds)
                + (3 if lr_sweep and method.name != "none" else 0),
                "steps": full.steps,
            }
        )
    plan: dict[str, Any] = {"model": bench.base.name, "variants": rows, "seeds": seeds, **task_facts(bench)}
    if json:
        _output.emit("compare", {"plan": plan})
        return
    console = _output.stdout()
    console.print("Nothing was run or written. The plan:", markup=False)
    for row in rows:
        console.print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), markup=False)
    _output.print_facts(task_facts(bench))
